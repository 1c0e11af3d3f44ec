"""Code of the user's own, named by its import path or by a file: what a config names so is executed."""
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

from lipfw.errors import InputError
from lipfw.interrupt import Interrupted
from lipfw.streams import global_stream


def imported(option: str, path):
    """Return what `path` names: package.module.name, or FILE.py:name. Modules are looked for in the current folder too.

    What is no text but can be called, as Python gives it, is returned as it is. What a module draws at random when it
    is imported is the same each time. Raises InputError, which names the option, for a name that is not there or that
    can't be imported.
    """
    if callable(path):
        return path
    if not isinstance(path, str) or not path.strip():
        raise InputError(f"{option} must be an import path, package.module.name, or FILE.py:name, got {path!r}")
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())    # `python -m` looks there, the script `lipfw` does not
    try:
        where, colon, name = path.rpartition(":")
        with global_stream(0, "import"):    # and one at a time: a module that is being imported is not whole yet
            found, names = (_of_file(where), name.split(".")) if colon else _of_path(path)
        for name in names:
            found = getattr(found, name)
    except Interrupted:
        raise
    except Exception as e:      # the user's code may raise anything
        raise InputError(f"{option}={path} can't be imported: {reason(e)}; it is package.module.name, found from the "
                         "current folder or among the installed packages, or FILE.py:name") from e
    return found


def spelled(path) -> str:
    """Return how what `imported` takes is told of: the path, or the name of what was given instead."""
    return path if isinstance(path, str) else getattr(path, "__qualname__", type(path).__qualname__)


def called(option: str, make: Callable, arguments: Mapping):
    """Return what a class or function of the user's makes of keyword arguments. Raises InputError where it raises."""
    try:
        return make(**arguments)
    except (InputError, Interrupted, MemoryError):
        raise
    except Exception as e:
        given = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
        raise InputError(f"{option}({given}) failed: {reason(e)}; its arguments are {option.partition('.')[0]}."
                         "arguments={name: value}") from e


def named(option: str, value) -> dict:
    """Return keyword arguments as a dictionary, empty for None. Raises InputError for anything else."""
    value = {} if value is None else value
    if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
        raise InputError(f"{option} must be keyword arguments, {{name: value, ...}}, got {value!r}")
    return dict(value)


def complete(function: Callable, arguments: Mapping) -> bool:
    """Return whether a function can be called with keyword arguments alone: whether it takes nothing else.

    >>> complete(lambda x, size=3: x, {"size": 5}), complete(lambda size: size, {"size": 5})
    (False, True)
    """
    try:
        signature = inspect.signature(function)
        signature.bind(**arguments)
    except (TypeError, ValueError):     # something is missing; or a function in C, whose arguments are not known
        return False
    return all(p.kind != p.VAR_POSITIONAL for p in signature.parameters.values())


def reason(error: Exception) -> str:
    """Return an error of the user's code in one line, with where it arose."""
    told = (str(error).strip().splitlines() or [""])[0]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__ and "<" not in f.filename]
    where = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' * bool(told)}{told}{where}"


def _of_path(path: str) -> tuple[ModuleType, list[str]]:
    """Import as much of a dotted path as are modules; returns the last one, and the names that are left."""
    names = path.split(".")
    module = importlib.import_module(names[0])
    for i in range(1, len(names)):
        name = ".".join(names[:i + 1])
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as e:
            if e.name != name:      # a module that is there asks for one that is not
                raise
            return module, names[i:]
    return module, []


def _of_file(path: str) -> ModuleType:
    """Import a file of Python, or a module for the form package.module:name; once in a process, while it is the same.
    """
    if not path.endswith(".py"):
        return importlib.import_module(path)
    file = Path(os.path.expanduser(path)).resolve()
    name = f"{file.stem}_{hashlib.sha256(str(file).encode() + file.read_bytes()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module      # what the module defines is looked up there, to be copied
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
