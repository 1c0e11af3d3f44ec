"""Configs as YAML files: one that can't be read is told in one line, with file and place. No torch here."""
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigSource
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from lipfw.errors import InputError

_HINTS = {      # what PyYAML says -> what helps
    "'\\t' that cannot start": "YAML is indented by spaces, never by tabs",
    "mapping values are not allowed": "indent lines of one block alike, and quote a text that has a colon in it",
    "expected <block end>": "indent lines of one block alike",
    "could not find expected ':'": "each line of a block is NAME: VALUE",
    "cannot start any token": "quote a text that begins so",
    "found duplicate key": "give it once",
    "another document": "a config is one, without a line --- in it",
}
_read: dict[tuple, bytes] = {}      # file and version -> what Hydra makes of it
_OPENED = {"flow sequence": "[", "flow mapping": "{", "quoted scalar": "quote"}


def text_of(path: Path) -> str:
    """Return the text of a config. Raises InputError for a file that can't be read, and for one that is not UTF-8."""
    try:
        data = Path(path).read_bytes()
        return data.decode("utf-8")
    except OSError as e:
        raise InputError(f"{path} can't be read ({e.strerror})") from None
    except UnicodeDecodeError as e:
        line = data[:e.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: the byte 0x{data[e.start]:02x} is no UTF-8; save the file as UTF-8"
                         ) from None


def check(path: Path) -> None:
    """Raise InputError for a config that is not UTF-8, and for one of which Hydra makes little.

    That is one that is no mapping, has an option whose name is no text, or defaults that are no list or name itself.
    """
    text = text_of(path)
    with _told(path, text):
        top = yaml.compose(text, yaml.SafeLoader)
    if top is None:
        return
    kinds = {yaml.SequenceNode: "a list", yaml.ScalarNode: "a single value"}
    if type(top) in kinds:
        raise InputError(f"{_place(path, top)}: a config is lines of NAME: VALUE, and this file is {kinds[type(top)]}")
    for mapping in (top, *(value for _, value in top.value if isinstance(value, yaml.MappingNode))):
        for key, _ in mapping.value:
            if not key.tag.endswith((":str", ":merge")):
                raise InputError(f"{_place(path, key)}: an option's name is a text, and {key.value!r} is none"
                                 if isinstance(key, yaml.ScalarNode) else
                                 f"{_place(path, key)}: an option's name is a text")
    for node in (value for key, value in top.value if key.value == "defaults"):
        if not isinstance(node, yaml.SequenceNode):
            raise InputError(f"{_place(path, node)}: defaults must be a list, e.g. defaults: [config, _self_]")
        if own := next((e for e in node.value if e.value in (path.stem, path.name)), None):
            raise InputError(f"{_place(path, own)}: defaults names this very file; rename it, or name another one")


def _place(path: Path, node: yaml.Node) -> str:
    return f"{path}, line {node.start_mark.line + 1}"


@contextmanager
def checked() -> Iterator[None]:
    """Let Hydra raise InputError, with file and place, for each config that it can't read.

    And read no file twice: it would do so for each composition, and YAML takes most of the time of one.
    """
    Plugins.instance()      # which executes the module of the class anew: the one to import is not the one in use
    files = SourcesRegistry.instance().resolve("file")
    load = files.load_config

    def load_config(source: ConfigSource, config_path: str):
        path = Path(source.path, source._normalize_file_name(config_path))
        if not path.is_file():
            return load(source, config_path)
        found = path.stat()
        version = (source.provider, source.path, path, found.st_mtime_ns, found.st_ctime_ns, found.st_size,
                   found.st_ino)
        if version not in _read:
            check(path)
            with _told(path, text_of(path)):
                _read[version] = pickle.dumps(load(source, config_path))
        return pickle.loads(_read[version])     # Hydra changes what it is given

    files.load_config = load_config
    try:
        yield
    finally:
        files.load_config = load


@contextmanager
def _told(path: Path, text: str) -> Iterator[None]:
    """Raise InputError for what YAML and OmegaConf raise for a file of this text."""
    try:
        yield
    except yaml.MarkedYAMLError as e:
        raise InputError(_line(path, text, e)) from None
    except yaml.reader.ReaderError as e:
        line = text[:e.position].count("\n") + 1
        raise InputError(f"{path}, line {line}: the character #x{e.character:04x} has no place in YAML; remove it"
                         ) from None
    except RecursionError:
        raise InputError(f"{path} is nested too deeply") from None
    except OmegaConfBaseException as e:
        key = f"{e.full_key}: " if getattr(e, "full_key", None) else ""
        hint = "; is each ${...} closed?" if isinstance(e, GrammarParseError) else ""
        raise InputError(f"{path}: {key}{str(e).strip().splitlines()[0]}{hint}") from None
    except ValueError as e:     # a tag such as !!int before a text, say
        raise InputError(f"{path}: {' '.join(str(e).split())}") from None


def _line(path: Path, text: str, error: yaml.MarkedYAMLError) -> str:
    """Return the line for an error that names its place.

    What is never closed shows where the file ends or anything else begins; what helps is where it was opened.
    """
    problem = " ".join((error.problem or error.context).split())
    mark, hint = error.problem_mark or error.context_mark, ""
    opened = next((sign for kind, sign in _OPENED.items() if kind in (error.context or "")), None)
    if opened and error.context_mark and ("expected ',' or" in problem or "end of stream" in problem):
        hint = f"the {opened} of line {error.context_mark.line + 1} is not closed before"
    else:
        hint = next((h for said, h in _HINTS.items() if said in problem), "")
    lines = len(text.splitlines())
    place = f"line {mark.line + 1}, column {mark.column + 1}" if mark.line < lines else f"line {lines}, at the end"
    return f"{path}, {place}: {problem}{hint and '; ' + hint}"
