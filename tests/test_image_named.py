"""The named sets: found in LIPFW_DATA, else downloaded from a server (here a local one), and always verified."""
import hashlib
import http.server
import os
import socket
import sys
import threading

import numpy as np
import pooch
import pytest
from PIL import Image

from lipfw.errors import InputError
from lipfw.image import named

REAL = pytest.mark.skipif(not os.environ.get("LIPFW_DATA"), reason="LIPFW_DATA is not set to a folder with the sets")


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A set `toy` of two pictures served by a local server, an empty cache and an empty LIPFW_DATA."""
    rng = np.random.default_rng(0)
    served = tmp_path / "served"
    served.mkdir()
    entries = {}
    for name, file in (("cat", "Cat256.png"), ("dog", "02.png")):
        Image.fromarray(rng.integers(0, 256, (31, 37, 3), dtype=np.uint8)).save(served / file)
        entries[name] = {"file": file, "sha256": hashlib.sha256((served / file).read_bytes()).hexdigest()}
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(served), **kwargs)

        def log_message(self, *args):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    table = {"toy": {"url": f"http://127.0.0.1:{server.server_port}", "files": entries}}
    monkeypatch.setattr(named, "tables", lambda: table)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setenv("LIPFW_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "data" / "toy").mkdir(parents=True)
    yield tmp_path, table["toy"], asked
    server.shutdown()
    server.server_close()


def fill(tmp_path):
    for file in (tmp_path / "served").iterdir():
        (tmp_path / "data" / "toy" / file.name).write_bytes(file.read_bytes())


def fails(words, *args, **kwargs):
    with pytest.raises(InputError) as error:
        named.load(*args, **kwargs)
    text = str(error.value)
    assert "\n" not in text
    for word in words.split("|"):
        assert word in text, text


def cached(tmp_path):
    return sorted(p.name for p in (tmp_path / "cache").rglob("*") if p.is_file())


def test_pictures_come_from_lipfw_data(shop):
    tmp_path, _, asked = shop
    fill(tmp_path)
    pictures = named.load("toy", degraded=True)
    assert [p.name for p in pictures] == ["cat", "dog"] and all(p.degraded for p in pictures)
    expected = np.asarray(Image.open(tmp_path / "served" / "02.png"))
    assert ((pictures[1].pixels[0].permute(1, 2, 0).numpy() * 255).round() == expected).all()
    for name in ("dog", "02", 2):
        assert [p.name for p in named.load("toy", name)] == ["dog"]
    assert named.load("toy", "Cat256", size=16)[0].size == (16, 16)
    assert not asked and not cached(tmp_path)


def test_a_changed_file_is_refused(shop):
    tmp_path, _, asked = shop
    fill(tmp_path)
    Image.new("RGB", (37, 31)).save(tmp_path / "data" / "toy" / "02.png")
    fails("02.png|not the picture of toy|image=file", "toy", "dog")
    assert named.load("toy", "cat") and not asked


@pytest.mark.parametrize("data", ["empty", "unset"])
def test_download_once(shop, data, monkeypatch):
    tmp_path, _, asked = shop
    if data == "unset":
        monkeypatch.delenv("LIPFW_DATA")
    assert [p.name for p in named.load("toy")] == ["cat", "dog"] and len(asked) == 2
    assert cached(tmp_path) == ["02.png", "Cat256.png"]
    assert [p.name for p in named.load("toy")] == ["cat", "dog"] and len(asked) == 2


def test_a_wrong_download_is_refused_and_not_kept(shop):
    tmp_path, _, _ = shop
    Image.new("RGB", (37, 31)).save(tmp_path / "served" / "02.png")
    fails("toy/02.png|could not be downloaded|LIPFW_DATA", "toy", "dog")
    assert not cached(tmp_path)


def test_no_server(shop):
    tmp_path, toy, _ = shop
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        toy["url"] = f"http://127.0.0.1:{free.getsockname()[1]}"  # nobody listens
        fails(f"{tmp_path / 'data' / 'toy' / '02.png'} does not exist|LIPFW_DATA|toy/02.png|pip install 'lipfw[data]'",
              "toy", "dog")
    assert not cached(tmp_path)


def test_a_server_that_says_nothing(shop, monkeypatch):
    tmp_path, toy, _ = shop
    monkeypatch.setattr(named, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        toy["url"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        fails("toy/02.png|LIPFW_DATA|timed out", "toy", "dog")
    assert not cached(tmp_path)


def test_a_file_that_the_server_lacks_and_a_cache_that_cannot_be_written(shop, monkeypatch):
    tmp_path, toy, _ = shop
    (tmp_path / "served" / "02.png").unlink()
    fails("toy/02.png|404", "toy", "dog")
    (tmp_path / "file").touch()
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "file" / project)
    fails("toy/Cat256.png|LIPFW_DATA", "toy", "cat")


def test_without_pooch(shop, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    fails("toy/02.png|pooch|LIPFW_DATA|pip install 'lipfw[data]'", "toy", "dog")
    monkeypatch.delenv("LIPFW_DATA")
    fails("LIPFW_DATA is not set|pip install 'lipfw[data]'", "toy", "dog")
    monkeypatch.setenv("LIPFW_DATA", str(shop[0] / "data"))
    fill(shop[0])
    assert named.load("toy", "dog")


def test_wrong_names():
    fails("image.set|set5, set14, set12, cbm3d, bm3d|did you mean set5", "sett5")
    fails("image.name|baby, bird, butterfly, head, woman|did you mean bird", "set5", "birdd")
    fails("image.name|cameraman", "set12", 13)
    fails("image.size", "set5", "bird", size=2)


def test_the_table_is_whole():
    table = named.tables()
    counts = {set: len(t["files"]) for set, t in table.items()}
    assert counts == {"set5": 5, "set14": 14, "set12": 12, "cbm3d": 9, "bm3d": 11}
    for entry in table.values():
        assert entry["url"].startswith("https://raw.githubusercontent.com/") and not entry["url"].endswith("/")
        assert len(entry["url"].split("/")[5]) == 40  # a commit, not a branch that moves
        sums = [f["sha256"] for f in entry["files"].values()]
        assert all(len(s) == 64 for s in sums) and len({f["file"] for f in entry["files"].values()}) == len(sums)
    # byte-identical pictures of two sets, as the data sets' description says
    assert table["bm3d"]["files"]["house"]["sha256"] == table["set12"]["files"]["house"]["sha256"]
    assert table["bm3d"]["files"]["peppers"]["sha256"] == table["set12"]["files"]["peppers"]["sha256"]


@REAL
@pytest.mark.parametrize("set, channels, first", [("set5", 3, (512, 512)), ("set14", 3, (480, 500)),
                                                  ("set12", 1, (256, 256)), ("cbm3d", 3, (256, 256)),
                                                  ("bm3d", 1, (256, 256))])
def test_the_true_sets(set, channels, first, monkeypatch):
    monkeypatch.setattr(pooch, "retrieve", None)  # they must come from LIPFW_DATA
    pictures = named.load(set)
    assert [p.name for p in pictures] == list(named.tables()[set]["files"])
    assert pictures[0].size == first and all(p.pixels.shape[1] == channels for p in pictures)
    assert all(p.alpha is None and p.bits == 8 for p in pictures)


@REAL
def test_true_pixels_and_aliases():
    bridge, = named.load("set14", "bridge")
    assert bridge.pixels.shape[1] == 1
    lena, = named.load("bm3d", "Lena512")
    assert lena.name == "lena" and (lena.pixels == named.load("set12", "08")[0].pixels).all()
    with Image.open(os.path.join(os.environ["LIPFW_DATA"], "cbm3d", "image_House256rgb.png")) as image:
        expected = np.asarray(image.convert("RGB"))
    house, = named.load("cbm3d", "house")
    assert ((house.pixels[0].permute(1, 2, 0).numpy() * 255).round() == expected).all()
