"""A U-Net as an untrained prior; the network is deepinv's (deepinv.models.UNet)."""
import importlib
from collections.abc import Sequence

from torch import nn

from lipfw.errors import InputError, whole
from lipfw.prior.prior import Prior, one_channel_count, round_up, uniform_codes
from lipfw.streams import global_stream


def model(prior: str, name: str) -> type[nn.Module]:
    """Return a class of deepinv.models, for prior=`prior`. Raises InputError where deepinv can't be imported."""
    try:
        return getattr(importlib.import_module("deepinv.models"), name)
    except (ImportError, RuntimeError, OSError, AttributeError) as e:    # e.g. torch and torchvision differ in build
        raise InputError(f"prior={prior} is a network of deepinv's, which can't be imported: {str(e).splitlines()[0]}; "
                         "pip install 'lipfw[deepinv]', with torch and torchvision of one build") from None


def unet(inputs: int, outputs: int, channels: int, depth: int) -> nn.Module:
    """Return the U-Net of `depth` scales, `channels` wide at the first and twice as wide at each further one."""
    network = model("unet", "UNet")(inputs, outputs, residual=False, device=None,
                                    channels_per_scale=[channels * 2 ** i for i in range(depth)])
    network.code_channels = inputs
    return network


NETWORK = unet      # what `rebuild` makes of an architecture's arguments


def build(shapes: Sequence[tuple[int, int, int]], *, channels: int = 32, depth: int = 5, code_channels: int = 32,
          jitter: float = 1 / 30, code: str = "own", redraw: bool = False, seed: int = 0) -> Prior:
    """Return the U-Net prior for pictures of these (C, H, W) shapes; weights and codes follow from the seed.

    Pictures are made at the next multiple of 2^(depth - 1) and cut. Raises InputError for one that is too small: batch
    norm needs more than one pixel at the bottom.
    """
    for name, value, least in (("prior.channels", channels, 1), ("prior.depth", depth, 2),
                               ("prior.code_channels", code_channels, 1)):
        whole(name, value, least)
    multiple = 2 ** (depth - 1)
    for _, h, w in shapes:
        if min(h, w) <= multiple:
            raise InputError(f"a picture of {w}x{h} pixels is too small for prior.depth={depth}: more than {multiple} "
                             "px a side are needed; use a smaller depth, or a larger picture")
    arguments = dict(inputs=code_channels, outputs=one_channel_count(shapes), channels=channels, depth=depth)
    with global_stream(seed, "weights"):
        network = unet(**arguments)
    codes = uniform_codes([(code_channels, round_up(h, multiple), round_up(w, multiple)) for _, h, w in shapes], code,
                          seed)
    return Prior(network, codes, shapes, jitter=jitter, seed=seed, redraw=redraw,
                 architecture={"network": "unet", **arguments})
