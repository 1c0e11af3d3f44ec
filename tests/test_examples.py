"""The examples of all docstrings are true."""
import doctest
import importlib
from pathlib import Path

import pytest

import lipfw

ROOT = Path(lipfw.__file__).parent
MODULES = [".".join(("lipfw", *p.relative_to(ROOT).with_suffix("").parts)) for p in sorted(ROOT.rglob("*.py"))
           if ">>>" in p.read_text()]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of(name):
    assert not doctest.testmod(importlib.import_module(name)).failed
