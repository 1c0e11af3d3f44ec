"""Data sets from folders and zips made here, the faces that need no download, and those of a LIPFW_DATA made here."""
import io
import os
import struct
import zipfile

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from lipfw import listing
from lipfw.cli import CONF
from lipfw.errors import InputError
from lipfw.folder import identity, label_parts, run_folder
from lipfw.image import archive, celeba, dataset, face, faces, held_out, lfw, skimage
from lipfw.image.dataset import Dataset, load

RNG = np.random.default_rng(0)


def levels(height=20, width=30, channels=3):
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(array, kind="PNG"):
    out = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(out, kind)
    return out.getvalue()


def zipped(path, files, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", **options) as z:
        for name, data in files.items():
            z.writestr(name, data)
    return path


def unpacked(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def fails(words, call, *args, **kwargs):
    with pytest.raises(InputError) as error:
        call(*args, **kwargs)
    text = str(error.value)
    assert "\n" not in text
    for word in words.split("|"):
        assert word in text, text


ARRAYS = {name: levels() for name in ("b.png", "a.png", "train/z.PNG", "train/deep/c.png", "test/d.png")}
FILES = {name: encoded(a) for name, a in ARRAYS.items()}
JUNK = {"notes.txt": b"no picture", ".hidden.png": b"?", ".cache/x.png": b"?", "__MACOSX/._a.png": b"?"}


# ---- what a data set is -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("pixels", [
    torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8), torch.zeros(2, 2, 8, 8, dtype=torch.uint8),
    torch.zeros(2, 3, 8, 16, dtype=torch.uint8), torch.zeros(2, 3, 12, 12, dtype=torch.uint8),
    torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(0, 3, 8, 8, dtype=torch.uint8),
    torch.zeros(2, 8, 8, 3, dtype=torch.uint8).permute(0, 3, 1, 2)])
def test_a_data_set_checks_itself(pixels):
    fails("pixels of x|power of two", Dataset, "x", pixels)


@pytest.mark.parametrize("part, names", [
    (None, ["a.png", "b.png", "test/d.png", "train/deep/c.png", "train/z.PNG"]),
    ("train", ["train/deep/c.png", "train/z.PNG"]), ("train/", ["train/deep/c.png", "train/z.PNG"]),
    ("train/deep", ["train/deep/c.png"])])
@pytest.mark.parametrize("kind", ["zip", "stored", "folder"])
def test_a_folder_and_its_zip_are_the_same_pictures_by_name(tmp_path, kind, part, names):
    if kind == "folder":
        path = unpacked(tmp_path / "x", FILES | JUNK)
    else:
        packed = zipfile.ZIP_DEFLATED if kind == "zip" else zipfile.ZIP_STORED
        path = zipped(tmp_path / "x.zip", FILES | JUNK, compression=packed)
    data = load(str(path), part, size=16, box=[3, 2, 16, 16])
    assert data.name == "x" and len(data) == len(names) and data.pixels.shape == (len(names), 3, 16, 16)
    for found, name in zip(data.pixels, names, strict=True):        # the size is there: an exact copy
        assert (found.permute(1, 2, 0).numpy() == ARRAYS[name][2:18, 3:19]).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]       # nothing was unpacked


def test_without_a_box_it_is_the_centre_square_by_lanczos(tmp_path):
    a = levels(20, 31)
    data = load(unpacked(tmp_path, {"a.png": encoded(a)}), size=8)
    expected = Image.fromarray(a[:, 5:25]).resize((8, 8), Image.Resampling.LANCZOS)
    assert (data.pixels[0].permute(1, 2, 0).numpy() == np.asarray(expected)).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_colour_and_grey(tmp_path, channels):
    grey, colour, clear = levels(16, 16, 1), levels(16, 16, 3), levels(16, 16, 4)
    files = {"a.png": encoded(grey), "b.png": encoded(colour), "c.png": encoded(clear)}
    data = load(zipped(tmp_path / "x.zip", files), size=16, channels=channels).pixels
    assert data.shape == (3, channels, 16, 16) and data.is_contiguous()
    assert (data[0].numpy() == grey[..., 0]).all()
    for found, a in ((data[1], colour), (data[2], clear[..., :3])):
        expected = a if channels == 3 else np.asarray(Image.fromarray(a).convert("L"))[..., None]
        assert abs(found.permute(1, 2, 0).numpy().astype(int) - expected).max() <= (channels == 1)


def test_sixteen_bits_become_eight(tmp_path):
    import tifffile

    a = RNG.integers(0, 65536, (16, 16), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", a)
    found = load(tmp_path, size=16, channels=1).pixels[0, 0].numpy()
    assert (found == np.rint(a / 257)).all()


def test_pictures_of_mixed_sizes(tmp_path):
    path = unpacked(tmp_path / "x", {"a.png": encoded(levels(20, 30)), "b.jpg": encoded(levels(31, 20), "JPEG")})
    fails("mixed sizes: a.png has 30x20 pixels, b.jpg 20x31|image.box|resize", load, path)
    assert len(load(path, box=[1, 2, 18, 18])) == 2
    fails("b.jpg: image.box=[2, 0, 20, 20]|column 22|20x31 pixels", load, path, box=[2, 0, 20, 20])


@pytest.mark.parametrize("words, options", [
    ("image.box=[0, 0, 16, 8]|square", dict(box=[0, 0, 16, 8])), ("image.box|[1, 2, 3]", dict(box=[1, 2, 3])),
    ("image.box|-1", dict(box=[-1, 0, 8, 8])), ("image.box|0.5", dict(box=[0.5, 0, 8, 8])),
    ("image.box|'face'", dict(box="face")), ("image.box|5", dict(box=5)), ("image.box|0]", dict(box=[0, 0, 0, 0])),
    ("image.size|power of two from 8 to 1024, got 48", dict(size=48)), ("image.size|4", dict(size=4)),
    ("image.size|None", dict(size=None)), ("image.size|2048", dict(size=2048)), ("image.size|True", dict(size=True)),
    ("image.channels|1, 3|2", dict(channels=2)), ("image.channels", dict(channels="3")),
    ("image.part=trian|test, train|null", dict(part="trian")), ("image.part|7", dict(part=7)),
    ("image.part|''", dict(part="")), ("image.part=..", dict(part=".."))])
def test_options_that_are_wrong(tmp_path, words, options):
    fails(words, load, unpacked(tmp_path / "x", FILES), **options)
    fails(words, load, zipped(tmp_path / "x.zip", FILES), **options)


# ---- what is no data set ----------------------------------------------------------------------------------------

def test_nothing_there(tmp_path):
    fails("nowhere does not exist|folder, or a zip", load, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    fails("empty holds no picture|.png", load, tmp_path / "empty")
    fails("x.zip holds no picture|.png", load, zipped(tmp_path / "x.zip", JUNK))
    (tmp_path / "a.png").write_bytes(FILES["a.png"])
    fails("a.png is no zip|folder", load, tmp_path / "a.png")


@pytest.mark.parametrize("data", [b"", FILES["a.png"][:200], b"text"])
@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_a_damaged_picture_is_named(tmp_path, kind, data):
    files = {"a.png": FILES["a.png"], "bad.png": data}
    path = zipped(tmp_path / "x.zip", files) if kind == "zip" else unpacked(tmp_path / "x", files)
    fails("x|bad.png", load, path)


@pytest.mark.parametrize("where", ["cut", "pixels", "directory"])
def test_a_damaged_zip(tmp_path, where):
    path = zipped(tmp_path / "x.zip", FILES)
    data = bytearray(path.read_bytes())
    if where == "cut":
        del data[-100:]
    elif where == "pixels":
        data[200] ^= 255
    else:
        start = data.index(b"PK\1\2")
        data[start:start + 4] = b"????"
    path.write_bytes(data)
    fails("x.zip|again", load, path)


def test_an_encrypted_zip(tmp_path):
    path = zipped(tmp_path / "x.zip", {"a.png": FILES["a.png"]})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    fails("a.png is encrypted|unpack it", load, path)


def test_bombs_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    path = zipped(tmp_path / "x.zip", {"a.png": b"\0" * (1 << 20)}, compression=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(archive, "MAX_FILE", 1 << 19)
    fails("a.png would unpack to 1 MiB|remove it", load, path)
    monkeypatch.setattr(archive, "MAX_FILE", 1 << 28)
    monkeypatch.setattr(archive, "MAX_BYTES", 1 << 19)
    fails("x.zip would unpack to|image.part", load, path)


def test_a_member_that_lies_about_its_size_is_not_read_beyond_it(tmp_path):
    path = zipped(tmp_path / "x.zip", {"a.png": b"\0" * (1 << 20)}, compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2") + 24
    data[at:at + 4] = struct.pack("<I", 1000)
    path.write_bytes(data)
    fails("a.png is damaged", load, path)


def test_names_that_lead_out_of_a_zip_lead_nowhere(tmp_path):
    (tmp_path / "in").mkdir()
    link = zipfile.ZipInfo("link.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    inside = {"/abs.png": FILES["a.png"], "../up.png": FILES["a.png"], "deep/../../up2.png": FILES["a.png"],
              "c:\\d.png": FILES["a.png"]}
    path = zipped(tmp_path / "in" / "x.zip", inside)
    before = sorted(tmp_path.rglob("*"))
    assert len(load(path)) == 2      # they are names to read by; those with .. count as hidden
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/hostname")
    fails("link.png is no picture", load, path)     # the text that a link is, not what it points to
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_what_is_no_file_is_not_waited_for(tmp_path):
    unpacked(tmp_path / "x", {"a.png": FILES["a.png"]})
    os.mkfifo(tmp_path / "x" / "b.png")
    fails("b.png is not a regular file", load, tmp_path / "x")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run_folder(compose("config", ["task=gan", "image=dataset", f"image.path={tmp_path / 'x'}"]))


def test_too_many_and_too_large(tmp_path, monkeypatch):
    path = unpacked(tmp_path / "x", FILES)
    monkeypatch.setattr(dataset, "MAX_BYTES", 1000)
    fails("5 pictures of image.size=32|lower image.size", load, path)
    monkeypatch.setattr(listing, "MAX_PICTURES", 4)
    fails("5 pictures, more than the limit of 4|image.part", load, path)
    monkeypatch.undo()
    monkeypatch.setattr(dataset, "DECODED_FOR_RESIZE", 100)
    fails("a.png: 30x20 pixels are more than the limit of 100; shrink or remove the picture", load, path)


# ---- faces ------------------------------------------------------------------------------------------------------

@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder LIPFW_DATA with a small CelebA and three photographs."""
    small = {f"{part}/{i:06d}.jpg": encoded(levels(109, 89), "JPEG") for part, numbers in
             (("train", range(1, 13)), ("test", range(20, 32))) for i in numbers}
    zipped(tmp_path / celeba.ARCHIVE, small)
    unpacked(tmp_path / "faces", {f"{i:06d}.jpg": encoded(levels(256, 256), "JPEG") for i in (5735, 193457, 6930)})
    monkeypatch.setenv("LIPFW_DATA", str(tmp_path))
    return tmp_path


def test_lfw_is_a_hundred_faces():
    from skimage.data import lfw_subset

    found = lfw.load(size=32)
    assert found.name == "lfw" and found.pixels.shape == (100, 3, 32, 32)
    assert (found.pixels[:, 0] == found.pixels[:, 2]).all() and lfw.load(channels=1).pixels.shape == (100, 1, 32, 32)
    expected = np.stack([np.asarray(Image.fromarray(f.astype(np.float32)).resize((32, 32), Image.Resampling.LANCZOS))
                         for f in lfw_subset()[:100]])
    away = abs(found.pixels[:, 0].numpy() / 255 - expected.clip(0, 1))
    assert np.quantile(away, 0.98) < 0.01        # on bytes, an overshoot is clipped between rows and columns
    fails("image.size", lfw.load, size=25)


def test_celeba(data):
    found = celeba.load()
    assert found.name == "celeba" and found.pixels.shape == (12, 3, 32, 32)
    whole = load(data / celeba.ARCHIVE, "test", size=64, box=[12, 28, 64, 64])
    assert torch.equal(celeba.load("test", size=64).pixels, whole.pixels)
    fails("image.part=val|test, train", celeba.load, "val")


def test_held_out_are_pictures_of_the_test_part(data):
    pictures = held_out.load()
    assert [p.name for p in pictures] == [f"{i:06d}" for i in range(20, 28)]
    assert {tuple(p.pixels.shape) for p in pictures} == {(1, 3, 32, 32)}
    native, = held_out.load("000023", size=None)
    expected = celeba.load("test", size=64).pixels[3]
    assert torch.equal((native.pixels[0] * 255).round().byte(), expected)
    assert held_out.load(23)[0].name == "000023" and len(held_out.load(count=None)) == 12
    assert held_out.load("000023", box=None, size=None)[0].size == (109, 89)
    fails("image.count must be at most 12, got 13", held_out.load, count=13)
    fails("image.name|000020|did you mean", held_out.load, "000032")


def test_faces_are_photographs(data):
    assert [p.name for p in faces.load()] == ["005735", "006930", "193457"]
    assert [p.name for p in faces.load(count=2)] == ["005735", "006930"]
    one, = faces.load(193457, degraded=True)
    assert one.name == "193457" and one.size == (32, 32) and one.degraded
    fails("image.count", faces.load, count=0)


def test_the_face_is_the_astronauts():
    found, = face.load(size=None)
    left, top, width, height = face.BOX
    whole, = skimage.load("astronaut")
    assert found.name == "face" and torch.equal(found.pixels, whole.pixels[..., top:top + height, left:left + width])
    assert face.load()[0].size == (32, 32)


@pytest.mark.parametrize("load, instead", [(celeba.load, "image=lfw"), (held_out.load, "image=face"),
                                           (faces.load, "image=face")])
def test_what_lies_in_no_folder(tmp_path, monkeypatch, load, instead):
    monkeypatch.setenv("LIPFW_DATA", str(tmp_path))
    fails(f"{tmp_path}|does not exist|set LIPFW_DATA|{instead}", load)
    monkeypatch.delenv("LIPFW_DATA")
    fails(f"LIPFW_DATA is not set|{instead}", load)


# ---- as options -------------------------------------------------------------------------------------------------

def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


@pytest.mark.parametrize("choice, module", [("held_out", held_out), ("faces", faces), ("face", face)])
def test_the_yaml_has_the_box_of_the_code(choice, module):
    assert tuple(config(f"image={choice}").image.box) == module.BOX


def test_the_yaml_builds_what_it_names(data):
    made = {c: instantiate(config(f"image={c}").image) for c in ("lfw", "celeba", "face", "faces", "held_out")}
    assert [len(made[c]) for c in made] == [100, 12, 1, 3, 8]
    whole = config("image=dataset", f"image.path='{data / celeba.ARCHIVE}'", "image.box=[0,0,80,80]", "image.part=test")
    assert len(instantiate(whole.image)) == 12


@pytest.mark.parametrize("overrides, label", [
    (["image=lfw"], "lfw"), (["image=celeba"], "celeba"), (["image=dataset", "image.path=my/cats.zip"], "cats"),
    (["image=face"], "face"), (["image=faces"], "faces"), (["image=held_out", "image.name=009937"], "009937")])
def test_the_label_names_the_pictures(overrides, label):
    assert label_parts(config(*overrides))[1] == label


def test_a_data_set_counts_by_its_content(tmp_path):
    def of(path, *more):
        return run_folder(config("image=dataset", f"image.path='{path}'", *more)).name.rsplit("-", 1)[1]

    folder, path = unpacked(tmp_path / "x", FILES), zipped(tmp_path / "x.zip", FILES)
    first, zip_first, train = of(folder), of(path), of(folder, "image.part=train")
    assert len({first, zip_first, train}) == 3
    (folder / "test" / "d.png").write_bytes(FILES["a.png"])
    assert of(folder) != first and of(folder, "image.part=train") == train
    zipped(path, FILES | {"a.png": FILES["b.png"]})
    assert of(path) != zip_first


def test_results_inside_the_folder_are_not_part_of_the_data_set(tmp_path):
    unpacked(tmp_path, FILES)
    before = load(tmp_path).pixels
    unpacked(tmp_path, {"runs/x/config.yaml": b"", "runs/x/sheet.png": encoded(levels(9, 9)),
                        "runs/x/rounds/1.png": encoded(levels(9, 9))})
    assert torch.equal(load(tmp_path).pixels, before)


def test_no_box_leaves_the_names_of_runs_as_they_are():
    assert "box" not in identity(config())["image"]
    assert identity(config("image.box=[0,0,64,64]"))["image"]["box"] == [0, 0, 64, 64]
    assert OmegaConf.select(config("image=face"), "image.box") is not None
