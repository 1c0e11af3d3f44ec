"""The hourglass as a classifier of pictures: tickets of restoration meet those of recognition in it."""
from collections.abc import Sequence

from torch import Tensor, nn

from lipfw.errors import InputError, whole
from lipfw.prior.skip import Skip
from lipfw.streams import global_stream


class Classifier(Skip):
    """Pictures (B, inputs, S, S) -> logits (B, classes): the hourglass with its head, flattened, and a linear layer.

    Its convolutions bear the names of those of the hourglass that restores, so that tickets of one fit the other: all
    but the first two have the same shape, whose inputs are the picture's channels here. With 3 inputs, 50 x 50 pixels
    and 10 classes, as published, it has 2,259,317 parameters, of which 2,175,244 are convolution weights. The published
    code puts a sigmoid between the linear layer and the cross-entropy; here the logits are the output.
    """

    related = ("skip", "classifier")

    def __init__(self, classes: int, size: int, inputs: int = 3, channels: int = 128, depth: int = 5, skip: int = 4):
        super().__init__(inputs, inputs, channels, depth, skip)
        self.code_size = (size, size)       # no other is taken
        self.linear = nn.Linear(inputs * size * size, classes)
        self.architecture = {"network": "classifier", "classes": classes, "size": size, "inputs": inputs,
                             "channels": channels, "depth": depth, "skip": skip}

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(super().forward(x).flatten(1))


NETWORK = Classifier        # what `rebuild` makes of an architecture's arguments


def build(shapes: Sequence[tuple[int, int, int]], *, classes: int | None = None, channels: int = 128, depth: int = 5,
          skip_channels: int = 4, seed: int = 0) -> Classifier:
    """Return a classifier of pictures of one (C, S, S) shape; its weights follow from the seed.

    Raises InputError without `classes`, which only a classification has, and for pictures that are too small: at the
    bottleneck reflection padding needs 2x2 pixels.
    """
    if classes is None:
        raise InputError("prior=classifier tells classes apart and makes no pictures; use prior=skip, or task=classify")
    for name, value in (("prior.channels", channels), ("prior.depth", depth), ("prior.skip_channels", skip_channels)):
        whole(name, value, least=1)
    ((inputs, size, _),) = shapes
    if size <= 2 ** depth:
        fits = (size - 1).bit_length() - 1
        raise InputError(f"pictures of {size}x{size} pixels are too small for prior.depth={depth}: {2 ** depth + 1} px "
                         f"is the least a side; use " + (f"prior.depth={fits}, or " if fits >= 1 else "")
                         + "a larger image.size")
    with global_stream(seed, "weights"):
        return Classifier(classes, size, inputs, channels, depth, skip_channels)
