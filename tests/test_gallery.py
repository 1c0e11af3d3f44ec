"""The script of README's gallery makes its picture, shrunk."""
import importlib.util
from pathlib import Path

import pytest
import torch
from PIL import Image

SCRIPT = Path(__file__).parents[1] / "docs" / "gallery.py"


@pytest.mark.skipif(not SCRIPT.is_file(), reason="not a checkout")
def test_the_gallery_is_made(tmp_path, capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location("gallery", SCRIPT)
    gallery = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gallery)
    monkeypatch.setattr(gallery, "SIZE", 32)
    monkeypatch.setattr(gallery, "NET", {"channels": 4, "depth": 2, "minutes": 1e-4})
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    gallery.main(tmp_path / "gallery.png")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(" dB, step " in line for line in lines)
    with Image.open(tmp_path / "gallery.png") as page:
        assert page.height > 4 * 32 and page.width > 3 * 32
