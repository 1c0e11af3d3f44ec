"""Pictures of classes, to train a classifier on and to test it: decoded once and kept in memory as bytes."""
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lipfw.errors import InputError, choice, whole
from lipfw.image.dataset import MAX_BYTES, MOST, fitted

RESIZES = ("lanczos", "nearest")


@dataclass(frozen=True, eq=False)       # tensors have no single truth value to compare by
class Labelled:
    """`train` and `test` are pictures (N, 3, S, S) uint8, their labels (N,) int64, each an index of `classes`.

    Raises InputError for other tensors, fewer than two classes, a label that is none, and a class without a picture to
    train on.
    """

    name: str
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self):
        n = len(self.classes)
        if n < 2:
            raise InputError(f"{self.name} has {f'one class, {self.classes[0]}' if n else 'no classes'}, and there is "
                             "nothing to tell apart; give it two at least")
        for part, x, labels in (("train", self.train, self.train_labels), ("test", self.test, self.test_labels)):
            _check(f"{part} of {self.name}", x, labels)
            wrong = ((labels < 0) | (labels >= n)).nonzero()
            if len(wrong):
                raise InputError(f"label {int(labels[wrong[0, 0]])} of picture {int(wrong[0, 0])} in {part} of "
                                 f"{self.name} is out of range: there are {n} classes, 0 to {n - 1}")
        if self.train.shape[1:] != self.test.shape[1:]:
            raise InputError(f"{self.name} is trained on pictures of {_size(self.train)} pixels and tested on "
                             f"{_size(self.test)}; resize them to one size")
        if len(missing := (torch.bincount(self.train_labels, minlength=n) == 0).nonzero()):
            raise InputError(f"{self.name} has no picture of class {self.classes[int(missing[0])]} to train on; add "
                             "some, or leave the class out")

    @property
    def size(self) -> int:
        """S."""
        return self.train.shape[3]


def check_resizing(size: int | None, resize: str) -> None:
    """Raise InputError unless `resized` takes these."""
    if size is not None:
        whole("image.size", size, least=2, most=MOST)
    choice("image.resize", resize, RESIZES)


def resized(data: Labelled, size: int | None, resize: str) -> Labelled:
    """Return the data set with pictures of size x size pixels (None: as they are), by "nearest" neighbour or "lanczos".
    """
    check_resizing(size, resize)
    if size in (None, data.size):
        return data
    check_bytes(data.name, len(data.train) + len(data.test), size)

    def one(x: Tensor) -> Tensor:
        if resize == "nearest":
            return interpolate(x, size=(size, size), mode="nearest")
        box = (0, 0, data.size, data.size)
        return torch.from_numpy(np.stack([fitted(a, box, size, 3) for a in x.permute(0, 2, 3, 1).numpy()]))

    return replace(data, train=one(data.train), test=one(data.test))


def from_arrays(name: str, train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray,
                classes: Sequence[str] | None = None) -> Labelled:
    """Return the data set of arrays (N, S, S, 3), or grey (N, S, S) or (N, S, S, 1), of uint8, and labels (N,).

    Without `classes` they are numbered, as many as there are labels to train on. Raises InputError.
    """
    labels = [_labels(f"{part}_labels of {name}", x) for part, x in (("train", train_labels), ("test", test_labels))]
    if classes is None:     # a class without a picture is told by its number, and an absurd one makes no list of all
        there = labels[0].unique().tolist()
        gap = next((i for i, label in enumerate(there) if label != i), None)
        if gap is not None:
            raise InputError(f"the labels of {name} must be 0, 1, 2 ... with no number left out, and {gap} is none of "
                             f"those that are trained on, {there[gap]} is; number the classes anew")
        classes = [str(i) for i in there]
    return Labelled(name, _pixels(f"train of {name}", train), labels[0], _pixels(f"test of {name}", test), labels[1],
                    tuple(classes))


def check_bytes(name, count: int, size: int) -> None:
    """Raise InputError for so many pictures of size x size pixels that take more memory than they may."""
    if 3 * count * size * size > MAX_BYTES:
        raise InputError(f"{name}: {count:,} pictures of {size}x{size} pixels take more than the limit of "
                         f"{MAX_BYTES >> 30} GiB; lower image.size")


def _check(name: str, x: Tensor, labels: Tensor) -> None:
    if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] != 3 or x.shape[2] != x.shape[3]:
        raise InputError(f"pictures to {name} must be square, in colour and of 8 bits, uint8 of shape (N, 3, S, S), "
                         f"got {x.dtype} of shape {tuple(x.shape)}")
    if not len(x):
        raise InputError(f"there are no pictures to {name}")
    if labels.dtype != torch.int64 or labels.shape != x.shape[:1]:
        raise InputError(f"pictures to {name} are {len(x)} and need a label each, int64, got {labels.dtype} of shape "
                         f"{tuple(labels.shape)}")


def _size(x: Tensor) -> str:
    return f"{x.shape[3]}x{x.shape[2]}"


def _labels(name: str, labels: np.ndarray) -> Tensor:
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or labels.size and labels.max() > np.iinfo(np.int64).max:
        raise InputError(f"{name} must be whole numbers, one a picture, got {labels.dtype} of shape {labels.shape}")
    return torch.from_numpy(labels.astype(np.int64))


def _pixels(name: str, x: np.ndarray) -> Tensor:
    """Return (N, 3, S, S) of (N, S, S), (N, S, S, 1) or (N, S, S, 3)."""
    x = x[..., None] if x.ndim == 3 else x
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[3] not in (1, 3):
        raise InputError(f"pictures to {name} must be uint8 of shape (N, H, W, 3), or grey (N, H, W), got {x.dtype} of "
                         f"shape {x.shape}")
    return torch.from_numpy(np.array(np.broadcast_to(x.transpose(0, 3, 1, 2), (len(x), 3, *x.shape[1:3])), order="C"))
