"""Lottery image priors: untrained networks that restore one picture, and the sparse tickets inside them."""

__version__ = "0.1.0"

_PUBLIC = {
    "restore": "lipfw.api",
    "Restored": "lipfw.api",
    "Mask": "lipfw.mask",
    "Problem": "lipfw.problem",
    "Ticket": "lipfw.ticket",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    """Import the public names when they are asked for, so that `import lipfw` costs no torch."""
    if name in _PUBLIC:
        import random
        from importlib import import_module

        drawn = random.getstate()       # rich draws numbers as it is imported
        try:
            return getattr(import_module(_PUBLIC[name]), name)
        finally:
            random.setstate(drawn)
    raise AttributeError(f"module 'lipfw' has no attribute {name!r}; it has {', '.join(__all__)}")
