"""The deep decoder: an under-parameterised prior of 1x1 convolutions (Heckel and Hand, ICLR 2019)."""
from collections.abc import Sequence

from torch import nn

from lipfw.errors import InputError, whole
from lipfw.prior.prior import Prior, one_channel_count, round_up, uniform_codes
from lipfw.streams import global_stream


class DeepDecoder(nn.Sequential):
    """(B, channels, h, w) -> (B, outputs, 2^depth h, 2^depth w), before the sigmoid.

    `depth` blocks of [1x1 convolution, bilinear doubling, ReLU, batch norm], one more without the doubling, and a 1x1
    head; no biases. (depth + 1) channels^2 + 2 (depth + 1) channels + channels * outputs parameters: 100,224 with 128
    channels, 619,200 with 320 (depth 5, 3 outputs).
    """

    def __init__(self, outputs: int = 3, channels: int = 128, depth: int = 5):
        layers = []
        for block in range(depth + 1):
            layers.append(nn.Conv2d(channels, channels, 1, bias=False))
            if block < depth:
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            layers += [nn.ReLU(inplace=True), nn.BatchNorm2d(channels)]
        super().__init__(*layers, nn.Conv2d(channels, outputs, 1, bias=False))
        self.code_channels = channels


NETWORK = DeepDecoder       # what `rebuild` makes of an architecture's arguments


def build(shapes: Sequence[tuple[int, int, int]], *, channels: int = 128, depth: int = 5, jitter: float = 0.0,
          code: str = "own", redraw: bool = False, seed: int = 0) -> Prior:
    """Return the deep-decoder prior for pictures of these (C, H, W) shapes; weights and codes follow from the seed.

    The code is 2^depth times smaller than the picture, rounded up; the surplus is cut.
    """
    whole("prior.channels", channels, least=1)
    whole("prior.depth", depth, least=1)
    longest = max(max(h, w) for _, h, w in shapes)
    if depth > longest.bit_length():
        raise InputError(f"prior.depth={depth} makes pictures of {2 ** depth} px at least, this one has {longest}; use "
                         f"at most {longest.bit_length()}")
    multiple = 2 ** depth
    arguments = dict(outputs=one_channel_count(shapes), channels=channels, depth=depth)
    with global_stream(seed, "weights"):
        network = DeepDecoder(**arguments)
    codes = uniform_codes([(channels, round_up(h, multiple) // multiple, round_up(w, multiple) // multiple)
                           for _, h, w in shapes], code, seed)
    return Prior(network, codes, shapes, jitter=jitter, seed=seed, redraw=redraw,
                 architecture={"network": "decoder", **arguments})
