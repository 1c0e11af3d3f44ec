"""What a release tells of itself agrees with the package."""
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import lipfw

ROOT = Path(__file__).parents[1]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_citation_and_changelog_are_of_this_version():
    assert CITATION["version"] == lipfw.__version__
    first = re.search(r"^## \[(.+?)\] - (Unreleased|\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert first and first[1] == lipfw.__version__
    assert CITATION["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]


@pytest.mark.parametrize("entry", [CITATION, *CITATION["references"]], ids=lambda e: e["title"])
def test_citations_have_what_the_format_asks_for(entry):
    """Citation File Format 1.2.0: required keys, and those that entries may have, of the ones in use."""
    required = {"cff-version", "message", "title", "authors"} if entry is CITATION else {"type", "title", "authors"}
    known = {"cff-version", "message", "type", "title", "abstract", "version", "license", "authors", "keywords",
             "references"} if entry is CITATION else {"type", "scope", "title", "authors", "journal", "year", "url",
                                                      "identifiers", "conference"}
    assert required <= set(entry) <= known
    assert entry["type"] in ({"software"} if entry is CITATION else {"article", "conference-paper"})
    for author in entry["authors"]:
        assert set(author) in ({"name"}, {"given-names", "family-names"}) and all(author.values())
    for identifier in entry.get("identifiers", ()):
        assert identifier["type"] in ("doi", "url", "swh", "other") and identifier["value"]
    assert isinstance(entry.get("year", 0), int) and entry.get("cff-version", "1.2.0") == "1.2.0"
