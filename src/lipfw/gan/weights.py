"""Weights of the progressive GAN: as published, as shipped with the package, and as lipfw writes them.

A file of ours is safetensors: `generator.*`, perhaps `critic.*` and `average.*` (a generator averaged over training),
in float32 or float16, and one entry of metadata with the architecture and what the writer had to say.
"""
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize

from lipfw.errors import InputError, nearest
from lipfw.files import write_bytes
from lipfw.gan import download, published
from lipfw.gan.fill import filled
from lipfw.gan.network import PUBLISHED, Critic, Generator
from lipfw.ticket import checksum

FORMAT, VERSION = "lipfw-gan", 1
_AGAIN = "copy it again, or write it again with lipfw.gan.weights.save"


@dataclass(frozen=True)
class Weights:
    """A generator and, where there is one, its critic, in float32 on the CPU; `about` says where they are from."""

    generator: Generator
    critic: Critic | None = None
    about: dict[str, str] = field(default_factory=dict)


def shipped() -> dict[str, Traversable]:
    """Return the files of weights that are part of the package, by name."""
    folder = files("lipfw.gan").joinpath("shipped")
    found = [f for f in folder.iterdir() if f.name.endswith(".safetensors")] if folder.is_dir() else []
    return {f.name.removesuffix(".safetensors"): f for f in sorted(found, key=lambda f: f.name)}


def load(source: str | Path, average: bool = False) -> Weights:
    """Return the weights that `source` names: a `.pth` or `.pt` file as published, a `.safetensors` file, or a name.

    Names are those of `download.FILES`, which are downloaded once, and of the shipped weights. `average` takes the
    generator averaged over the training. Raises InputError for an unknown name and for a file that is missing, damaged,
    of something else or without the average asked for.
    """
    ours = shipped()
    if isinstance(source, str) and source in ours:
        with as_file(ours[source]) as path:
            return _read(path, average)
    if isinstance(source, str) and source in download.FILES:
        return _published(download.fetch(source), average)
    path = Path(source).expanduser() if isinstance(source, str | Path) else Path()
    if path.suffix not in (".pth", ".pt", ".safetensors"):
        names = [*ours, *download.FILES]
        raise InputError(f"prior.weights must be one of {', '.join(names)} or a path to a .safetensors or .pth file, "
                         f"got {str(source)!r}{nearest(source, names)}")
    if not path.is_file():
        raise InputError(f"no weights at {path}; give the path of a .safetensors or .pth file, or a name: "
                         f"{', '.join([*ours, *download.FILES])}")
    return _read(path, average) if path.suffix == ".safetensors" else _published(path, average)


def save(path: Path, generator: Generator, critic: Critic | None = None, average: Generator | None = None,
         about: Mapping[str, str] = {}, half: bool = False) -> None:     # noqa: B006 - never changed
    """Write networks of one architecture in one step; equal ones make equal files. `half` stores them in float16.

    Raises InputError for a number that is not finite or, with `half`, that float16 cannot hold.
    """
    networks = {"generator": generator, "critic": critic, "average": average}
    stored = {}
    for part, network in networks.items():
        if network is None:
            continue
        architecture = network.channels, network.outputs, getattr(network, "latent", generator.latent)
        if architecture != (generator.channels, generator.outputs, generator.latent):
            raise ValueError(f"the {part} is of another architecture than the generator")
        for name, tensor in network.state_dict().items():
            tensor = tensor.detach().cpu().to(torch.float16 if half else torch.float32).contiguous().clone()
            if not tensor.isfinite().all():
                why = "that float16 cannot hold (at most 65504): write them without half" if half else \
                    "that are not finite: train with a smaller learning rate"
                raise InputError(f"{part}.{name} has numbers {why}")
            stored[f"{part}.{name}"] = tensor
    header = {"version": VERSION, "channels": list(generator.channels), "latent": generator.latent,
              "outputs": generator.outputs, "sha256": checksum(stored),
              "about": {str(k): str(v) for k, v in sorted(about.items())}}
    write_bytes(path, serialize(stored, metadata={FORMAT: json.dumps(header)}))     # one entry: several are unordered


def check_resolution(weights: Weights, height: int, width: int) -> None:
    """Raise InputError unless the generator makes pictures of this height and width."""
    made = weights.generator.resolution
    if (height, width) != (made, made):
        raise InputError(f"these weights make pictures of {made}x{made}, the picture is {width}x{height}; "
                         f"use image.size={made}")


def _published(path: Path, average: bool) -> Weights:
    found = published.read(path)
    state = found.average if average else found.generator
    if state is None:
        raise _no_average(path)
    net = "avgG" if average else "netG"
    generator = filled(lambda: Generator(found.channels, found.latent, found.outputs), state, f"{path}, {net}")
    critic = None
    if found.critic is not None:
        critic = filled(lambda: Critic(found.channels, found.outputs), found.critic, f"{path}, netD")
    return Weights(generator, critic, {"source": "pytorch_GAN_zoo", "file": path.name, "generator": net})


def _read(path: Path, average: bool) -> Weights:
    """Read a file of ours."""
    try:
        with safe_open(path, "pt") as f:
            metadata = dict(f.metadata() or {})
            stored = {n: f.get_tensor(n) for n in f.keys()} if FORMAT in metadata else {}
    except (SafetensorError, OSError) as error:
        why = " ".join(str(error).split())[:100]
        raise InputError(f"{path} is no readable safetensors file ({why}); {_AGAIN}") from None
    if FORMAT not in metadata:
        raise InputError(f"{path} is a safetensors file but holds no progressive GAN of lipfw; give a file that "
                         "lipfw.gan.weights.save has written")
    try:
        header = json.loads(metadata[FORMAT])
        version = header["version"]
        if version != VERSION:
            raise InputError(f"{path} has weights format {version!r}, this lipfw reads {VERSION}; use the lipfw that "
                             "wrote it")
        channels, latent, outputs = tuple(header["channels"]), header["latent"], header["outputs"]
        sound = 1 <= len(channels) <= len(PUBLISHED) and checksum(stored) == header["sha256"]
        sound = sound and all(type(n) is int and 0 < n < 1 << 16 for n in (*channels, latent, outputs))
        about = {str(k): str(v) for k, v in header["about"].items()}
    except InputError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise InputError(f"{path} is damaged: its weights do not match its own header; {_AGAIN}")
    parts = {part: {} for part in ("generator", "critic", "average")}
    for name, tensor in stored.items():
        part, _, rest = name.partition(".")
        if part not in parts:
            raise InputError(f"{path} has {name[:60]!r}, which is no weight of a progressive GAN; {_AGAIN}")
        parts[part][rest] = tensor
    if average and not parts["average"]:
        raise _no_average(path)
    part = "average" if average else "generator"
    generator = filled(lambda: Generator(channels, latent, outputs), parts[part], f"{path}, {part}")
    critic = filled(lambda: Critic(channels, outputs), parts["critic"], f"{path}, critic") if parts["critic"] else None
    return Weights(generator, critic, about)


def _no_average(path: Path) -> InputError:
    return InputError(f"{path} has no averaged generator; leave out the average, or give other weights")
