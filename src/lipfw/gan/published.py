"""The progressive GANs that pytorch_GAN_zoo has published: their files, names and settings.

A file is a dictionary of `config`, an object of plain attributes, and the state dicts `netG`, `netD` and `avgG` (the
generator with its weights averaged over the training).
"""
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lipfw.errors import InputError
from lipfw.gan import torchfile

CONFIG = "models.utils.config.BaseConfig"
_NAMES = {      # theirs -> ours
    "formatLayer": "format_layer", "groupScale0": "group_scale0", "scaleLayers": "scale_layers",
    "toRGBLayers": "to_rgb_layers", "fromRGBLayers": "from_rgb_layers", "groupScaleZero": "group_scale_zero",
    "decisionLayer": "decision_layer",
}
_THEIRS = {ours: theirs for theirs, ours in _NAMES.items()}
_NAME = re.compile(r"(\w+?)((?:\.\d+)*)(?:\.module)?\.(weight|bias)")
_CAN = {        # what `lipfw.gan.network` computes; where older files are silent, the shapes speak
    "alpha": (0,), "leakyReluLeak": (0.2,), "perChannelNormalization": (True,), "equalizedlR": (True,),
    "miniBatchStdDev": (True,), "categoryVectorDim": (0,),
    "lossCriterion": ("WGANGP", "WGANGP2"),     # the others put a tanh behind the generator
}


@dataclass(frozen=True)
class Published:
    """What a file holds, under our names: the widths of the scales, the sizes of code and colour, and the weights."""

    channels: tuple[int, ...]
    latent: int
    outputs: int
    generator: dict[str, Tensor]
    critic: dict[str, Tensor] | None
    average: dict[str, Tensor] | None


def read(path: Path) -> Published:
    """Read a published file. Raises InputError for anything else, and for a network other than `lipfw.gan.network`.

    Which weights there must be is not checked here: that is for whoever builds the networks.
    """
    found = torchfile.read(path, CONFIG)
    config = found.get("config")
    if not isinstance(config, torchfile.Settings) or not isinstance(found.get("netG"), dict):
        keys = ", ".join(map(_short, list(found)[:3])) or "nothing"
        raise InputError(f"{path} is no progressive GAN of pytorch_GAN_zoo: it holds {keys}, not config and netG; give "
                         "such a file, or a .safetensors file of lipfw")
    for name, can in _CAN.items():
        if name in config.values and config.values[name] not in can:
            raise InputError(f"{path} was trained with {name}={_short(config.values[name])}; lipfw has this network "
                             f"only with {name}={can[0]!r}: give other weights")
    states = {net: from_published(found[net], f"{path}, {net}") if isinstance(found.get(net), dict) else None
              for net in ("netG", "netD", "avgG")}
    channels, latent, outputs = _architecture(states["netG"], path)
    stated = {"depthScale0": channels[0], "depthOtherScales": list(channels[1:]), "latentVectorDim": latent,
              "dimOutput": outputs}
    for name, value in stated.items():
        if config.values.get(name, value) != value:
            raise InputError(f"{path} is damaged: its config says {name}={_short(config.values[name])}, its weights "
                             f"{value!r}; download or copy it again")
    return Published(channels, latent, outputs, states["netG"], states["netD"], states["avgG"])


def from_published(state: Mapping[str, Tensor], what: str = "the state dict") -> dict[str, Tensor]:
    """Return a state dict under our names; older files lack the `.module`. InputError names what is no such weight.

    >>> list(from_published({"scaleLayers.2.1.module.bias": None, "toRGBLayers.6.weight": None}))
    ['scale_layers.2.1.bias', 'to_rgb_layers.6.weight']
    """
    ours = {}
    for name, tensor in state.items():
        match = _NAME.fullmatch(name)
        if match is None or match[1] not in _NAMES:
            raise InputError(f"{what} has {_short(name)}, which is no weight of a progressive GAN of pytorch_GAN_zoo; "
                             "give a file with its names, such as scaleLayers.0.1.module.weight")
        new = f"{_NAMES[match[1]]}{match[2]}.{match[3]}"
        if new in ours:
            raise InputError(f"{what} has {new} twice, with and without .module; download or copy it again")
        ours[new] = tensor
    return ours


def to_published(state: Mapping[str, Tensor], module: bool = True) -> dict[str, Tensor]:
    """Return a state dict of ours under the published names, of older files without `module`.

    >>> list(to_published({"scale_layers.2.1.bias": None}))
    ['scaleLayers.2.1.module.bias']
    """
    theirs = {}
    for name, tensor in state.items():
        layer, _, rest = name.partition(".")
        place, _, parameter = f".{rest}".rpartition(".")
        theirs[f"{_THEIRS[layer]}{place}{'.module' if module else ''}.{parameter}"] = tensor
    return theirs


def _short(value) -> str:
    """Return the start of a value's text; of lists within lists, which may be endless, the first few entries."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxlong = brief.maxother = 60
    return brief.repr(value)[:60]


def _architecture(generator: Mapping[str, Tensor], path: Path) -> tuple[tuple[int, ...], int, int]:
    """Return the widths of the scales and the sizes of code and colour, as the shapes tell them."""
    shapes = {name: tuple(t.shape) for name, t in generator.items() if isinstance(t, Tensor)}
    heads = []
    while len(head := shapes.get(f"to_rgb_layers.{len(heads)}.weight", ())) == 4:
        heads.append(head)
    code = shapes.get("format_layer.weight", ())
    if not heads or len(code) != 2:
        missing = "formatLayer" if heads else "toRGBLayers.0"
        raise InputError(f"{path}, netG lacks {missing} of the right shape; download or copy it again")
    return tuple(head[1] for head in heads), code[1], heads[0][0]
