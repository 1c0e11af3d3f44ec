"""No secret is told: keys, tokens and passwords become *** in all that is written, logged or printed.

A secret is told by its name, that of an option (`logger.settings.api_key`, `headers`) or of an environment variable
(HF_TOKEN), or is the user and password in a URL. Runs are made with the real values; only what tells of them is not.
"""
import functools
import os
import re
from collections.abc import Iterator, Mapping
from typing import TextIO

HIDDEN = "***"
SHORTEST = 8        # letters of a variable's value that is looked for in any text: "1" or "true" would be everywhere

_WORDS = ("token", "secret", "password", "passwd", "passphrase", "apikey", "credential")      # or words that end so
_WHOLE = {"auth", "authorization", "bearer", "headers"}
_OF_KEYS = {"api", "access", "secret", "private", "signing", "encryption", "license"}   # a key alone may be a sort key
_OF_VARIABLES = {"key", "keys", "pass", "pwd", "pat", "cookie", "sshpass"}
_PLAIN = re.compile(r"(?i)true|false|null|none|\?\?\?|[+-]?[\d.]{1,7}|\*{3}|\$\\?\{[^{},]*\}|")    # tells nothing
_OVERRIDE = re.compile(r"([+~]*[\w.@/-]+)=(.*)", re.DOTALL)
_PAIR = re.compile(r"""(?<![\w.-])([\w.-]++)(["']?\s*[=:]\s*)"""
                   r"""(\$\\?\{[^{}]*\}|\{[^}]*\}|\[[^\]]*\]|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|"""
                   r"""(?:(?:Bearer|Basic|Token)\s+)?[^\s,;)\]}'"]+)""")
_VARIABLE = re.compile(r"(\$\{\s*oc\.env\s*:\s*['\"]?(\w+)['\"]?\s*)(,[^{}]*)?\}")
_IN_URL = re.compile(r"(?<=://)[^/\s'\"]+(?=@)")


@functools.lru_cache(4096)
def secret(name: str) -> bool:
    """Return whether the name of an option, or in capitals that of a variable, is that of a secret.

    >>> [secret(n) for n in ("logger.api_key", "headers", "HF_TOKEN", "GPG_KEY", "key", "monkey", "author", "seed")]
    [True, True, True, True, False, False, False, False]
    >>> [secret(n) for n in ("hub_token", "token_mixing", "MYSQL_PWD", "PWD")]
    [True, False, True, False]
    """
    last = name.rpartition(".")[2].rpartition("/")[2]
    words = [w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", last)]
    if last.isupper() and _OF_VARIABLES & set(words):
        return last != "PWD"        # the folder of a shell
    if not last.isupper():          # networks have tokens, too: token_mixing, token_dim
        words = [w for w in words[:-1] if w not in ("token", "tokens")] + words[-1:]
    named = any(w in _WHOLE or w.removesuffix("s").endswith(_WORDS) for w in words)
    return named or any(b in ("key", "keys") and a in _OF_KEYS for a, b in zip(words, words[1:], strict=False))


def text(told: str, *more: str) -> str:
    """Return a text without the secrets that can be told in it; `more` are some that are known.

    >>> text("lipfw logger.settings.api_key=abc image.url=https://me:word@example.org/a.png seed=0")
    'lipfw logger.settings.api_key=*** image.url=https://***@example.org/a.png seed=0'
    """
    for value in sorted({*_of_environment(), *more}, key=len, reverse=True):
        told = told.replace(value, HIDDEN)
    if "://" in told:
        told = _IN_URL.sub(HIDDEN, told)
    if (m := _OVERRIDE.fullmatch(told)) and secret(m[1]):
        return told if _PLAIN.fullmatch(m[2]) else f"{m[1]}={HIDDEN}"
    told = _VARIABLE.sub(lambda m: f"{m[1]},{HIDDEN}}}" if m[3] and secret(m[2].upper()) else m[0], told)
    done, at = [], 0
    while m := _PAIR.search(told, at):
        named = secret(m[1])
        end = m.end() if named else m.start(3)      # what has another name may hold some: {token: abc}
        done += [told[at:m.start(3)], told[m.start(3):end] if not named or _PLAIN.fullmatch(m[3]) else HIDDEN]
        at = end
    return "".join([*done, told[at:]])


def tree(value, raw=None):
    """Return a config, or what else JSON holds, without its secrets.

    `raw` is the same config with its interpolations: what comes from a secret's variable is hidden whatever its name
    and length.
    """
    if isinstance(raw, str) and any(secret(m[2].upper()) for m in _VARIABLE.finditer(raw)):
        return _hidden(value)
    if isinstance(value, Mapping):
        below = raw if isinstance(raw, Mapping) else {}
        return {k: _hidden(v) if secret(str(k)) else tree(v, below.get(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        below = raw if isinstance(raw, (list, tuple)) and len(raw) == len(value) else [None] * len(value)
        return [tree(v, r) for v, r in zip(value, below, strict=True)]
    return text(value) if isinstance(value, str) else value


def literals(value, below: bool = False) -> Iterator[str]:
    """Yield the texts of a config that stand under the names of secrets."""
    if isinstance(value, Mapping):
        for k, v in value.items():
            yield from literals(v, k != "_target_" and (below or secret(str(k))))
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from literals(v, below)
    elif below and isinstance(value, str) and not _PLAIN.fullmatch(value):
        yield value


class Told:
    """A stream that tells no secrets."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, told: str) -> int:
        self._stream.write(text(told))
        return len(told)

    def __getattr__(self, name):
        return getattr(self._stream, name)


def _hidden(value):
    """Return a value with all that it tells hidden; what can be no secret stays, so that settings are still seen."""
    if isinstance(value, Mapping):
        return {k: v if k == "_target_" else _hidden(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hidden(v) for v in value]
    return value if value is None or _PLAIN.fullmatch(str(value)) else HIDDEN


def _of_environment() -> set[str]:
    """Return the values of variables that are named as secrets are; a path that exists is where one lies, and none."""
    return {v for n, v in os.environ.items() if secret(n.upper()) and len(v) >= SHORTEST and not os.path.exists(v)}
