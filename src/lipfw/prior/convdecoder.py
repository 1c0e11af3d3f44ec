"""The convolutional decoder as a prior (Darestani and Heckel, 2021); the network is deepinv's."""
from collections.abc import Sequence

from torch import nn

from lipfw.errors import InputError, whole
from lipfw.prior.prior import Prior, one_channel_count, uniform_codes
from lipfw.prior.unet import model
from lipfw.streams import global_stream


def convdecoder(outputs: int, height: int, width: int, side: int, channels: int, depth: int) -> nn.Module:
    """Return the decoder from codes (B, channels, side, side) to pictures (B, outputs, height, width)."""
    network = model("convdecoder", "ConvDecoder")((outputs, height, width), (side, side), depth, channels)
    network.code_channels = channels
    return network


NETWORK = convdecoder      # what `rebuild` makes of an architecture's arguments


def build(shapes: Sequence[tuple[int, int, int]], *, channels: int = 256, depth: int = 7, code_side: int = 4,
          jitter: float = 0.0, code: str = "own", redraw: bool = False, seed: int = 0) -> Prior:
    """Return the decoder's prior for pictures of one (C, H, W) shape; weights and codes follow from the seed.

    `depth` layers of 3x3 convolutions, all `channels` wide, lead from a code of `code_side` pixels a side to the
    picture, each enlarging by the same factor. Raises InputError for pictures of several sizes: the network knows its
    own.
    """
    for name, value, least in (("prior.channels", channels, 1), ("prior.depth", depth, 2),
                               ("prior.code_side", code_side, 2)):
        whole(name, value, least)
    outputs = one_channel_count(shapes)
    if len({s[1:] for s in shapes}) > 1:
        raise InputError("prior=convdecoder makes pictures of one size, and these have "
                         f"{', '.join(sorted({f'{w}x{h}' for _, h, w in shapes}))}; use image.size=")
    _, height, width = shapes[0]
    arguments = dict(outputs=outputs, height=height, width=width, side=code_side, channels=channels, depth=depth)
    with global_stream(seed, "weights"):
        network = convdecoder(**arguments)
    codes = uniform_codes([(channels, code_side, code_side)] * len(shapes), code, seed)
    return Prior(network, codes, shapes, jitter=jitter, seed=seed, redraw=redraw,
                 architecture={"network": "convdecoder", **arguments})
