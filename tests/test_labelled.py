"""Labelled data: what is read equals what was written, by other means, and what can't be right is told in one line."""
import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lipfw.configs import CONF
from lipfw.errors import InputError
from lipfw.folder import path_digest, run_folder
from lipfw.image import cifar, lfw_labelled, npz, subset
from lipfw.image.classes import Labelled, from_arrays, resized
from lipfw.image.labelled import load

RNG = np.random.default_rng(5)


def refused(make, *words):
    with pytest.raises(InputError) as e:
        make()
    told = str(e.value)
    assert "\n" not in told
    for word in words:
        assert word in told


# --- the data set

def arrays(n=6, side=5, classes=3):
    return (RNG.integers(0, 256, (n, side, side, 3), np.uint8), np.arange(n) % classes,
            RNG.integers(0, 256, (4, side, side, 3), np.uint8), np.arange(4) % classes)


def test_arrays_become_channels_first_and_grey_three_channels():
    x, y, tx, ty = arrays()
    data = from_arrays("d", x, y, tx, ty)
    assert data.classes == ("0", "1", "2") and data.size == 5
    assert all(torch.equal(data.train[i, c], torch.from_numpy(x[i, :, :, c])) for i in range(6) for c in range(3))
    assert data.test_labels.tolist() == [0, 1, 2, 0] and data.train_labels.dtype == torch.int64
    for grey in (x[..., 0], x[..., :1]):
        data = from_arrays("d", grey, y, tx, ty)
        assert all(torch.equal(data.train[:, c], torch.from_numpy(x[..., 0])) for c in range(3))


@pytest.mark.parametrize("change, words", [
    (lambda a: {"train_labels": a[1] * 0}, ["one class, 0"]),
    (lambda a: {"train_labels": a[1] + 1}, ["0, 1, 2", "0 is none"]),
    (lambda a: {"train_labels": np.array([0, 1, 10 ** 15, 0, 1, 2])}, ["number the classes anew"]),
    (lambda a: {"test_labels": np.array([0, 1, 3, 0])}, ["label 3 of picture 2 in test", "3 classes, 0 to 2"]),
    (lambda a: {"test_labels": np.array([0, -1, 1, 0])}, ["label -1 of picture 1 in test"]),
    (lambda a: {"test_labels": np.array([0, 1, 1])}, ["test of d are 4 and need a label each"]),
    (lambda a: {"train_labels": a[1].astype(float)}, ["train_labels of d", "whole numbers", "float64"]),
    (lambda a: {"train_labels": np.full(6, 2 ** 63, np.uint64)}, ["train_labels of d", "uint64"]),
    (lambda a: {"classes": "abcd"}, ["no picture of class d to train on"]),
    (lambda a: {"test": a[2][:, :4, :4]}, ["trained on pictures of 5x5", "tested on 4x4"]),
    (lambda a: {"train": a[0][:, :4]}, ["train of d must be square", "(6, 3, 4, 5)"]),
    (lambda a: {"train": a[0].astype(np.float32)}, ["uint8", "float32"]),
    (lambda a: {"test": a[2][:0], "test_labels": a[3][:0]}, ["no pictures to test of d"])])
def test_what_is_no_data_set_is_refused(change, words):
    a = arrays()
    given_ = dict(train=a[0], train_labels=a[1], test=a[2], test_labels=a[3]) | change(a)
    refused(lambda: from_arrays("d", **given_), *words)


@given(st.integers(2, 40), st.integers(2, 60))
@settings(max_examples=40, deadline=None)
def test_nearest_neighbours_come_from_where_they_should(side, size):
    """Pixel i of `size` is the one below i * side / size; where that is whole but for rounding, either side of it."""
    ramp = np.broadcast_to(np.arange(side, dtype=np.uint8)[:, None, None], (side, side, 3))[None]
    data = resized(from_arrays("d", np.concatenate([ramp, ramp]), np.arange(2), ramp, np.arange(1)), size, "nearest")
    assert data.train.shape == (2, 3, size, size)
    got, exact = data.train[0, 0, :, 0].numpy().astype(int), np.arange(size) * side
    assert ((got == exact // size) | ((exact % size == 0) & (got == exact // size - 1))).all()


def test_lanczos_is_pillows():
    x, y, tx, ty = arrays(side=9)
    data = resized(from_arrays("d", x, y, tx, ty), 6, "lanczos")
    want = np.asarray(Image.fromarray(x[2]).resize((6, 6), Image.Resampling.LANCZOS))
    assert torch.equal(data.train[2].permute(1, 2, 0), torch.tensor(want))
    refused(lambda: resized(data, 0, "nearest"), "image.size")
    refused(lambda: resized(data, 2000, "nearest"), "image.size", "1,024")
    refused(lambda: resized(data, 8, "cubic"), "image.resize", "lanczos, nearest")


# --- CIFAR-10's binary files

def records(labels, seed):
    """Return records as the format is published: a byte of label, then rows of red, of green, of blue."""
    rng, out = np.random.default_rng(seed), b""
    pictures = rng.integers(0, 256, (len(labels), 32, 32, 3), np.uint8)
    for label, picture in zip(labels, pictures, strict=True):
        out += struct.pack("B", label)
        for channel in range(3):
            for row in range(32):
                out += struct.pack("32B", *picture[row, :, channel])
    return out, pictures


def write_cifar(folder):
    folder.mkdir(parents=True)
    pictures = []
    for i in (1, 2):
        content, x = records([9 - j for j in range(10)], i)
        (folder / f"data_batch_{i}.bin").write_bytes(content)
        pictures.append(x)
    content, test = records([3, 4, 0], 9)
    (folder / "test_batch.bin").write_bytes(content)
    (folder / "batches.meta.txt").write_text("airplane\n")
    return np.concatenate(pictures), test


@pytest.mark.parametrize("where", ["", "cifar-10-batches-bin", "tar"])
def test_cifars_binary_files(tmp_path, where):
    folder = tmp_path / "c" / (where if where != "tar" else "cifar-10-batches-bin")
    train, test = write_cifar(folder)
    path = tmp_path / "c"
    if where == "tar":
        path = tmp_path / "cifar-10-binary.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder, "cifar-10-batches-bin")
    data = load(str(path))
    assert torch.equal(data.train.permute(0, 2, 3, 1), torch.from_numpy(train))
    assert torch.equal(data.test.permute(0, 2, 3, 1), torch.from_numpy(test))
    assert data.train_labels.tolist() == [9 - j for j in range(10)] * 2 and data.test_labels.tolist() == [3, 4, 0]
    assert data.classes[3] == "cat" and data.classes[9] == "truck" and data.name == "cifar10"


def test_broken_cifar_files(tmp_path):
    folder = tmp_path / "c"
    write_cifar(folder)
    before = path_digest("image", str(folder), "")
    batch = folder / "data_batch_2.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    assert path_digest("image", str(folder), "") != before      # other files are another run
    refused(lambda: load(str(folder)), "data_batch_2.bin has 30,729 bytes", "3,073", "cut off")
    batch.write_bytes(bytes([10]) + bytes(3072))
    refused(lambda: load(str(folder)), "label 10 of picture 10 in train", "0 to 9")
    (folder / "test_batch.bin").unlink()
    refused(lambda: load(str(folder)), "lacks test_batch.bin")
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(b"\x1f\x8b" + bytes(40))
    refused(lambda: load(str(archive)), "x.tar.gz is no tar archive, or a damaged one")
    with tarfile.open(archive, "w:gz") as f:
        f.add(folder / "data_batch_1.bin", "data_batch_1.bin")
    refused(lambda: load(str(archive)), "lacks test_batch.bin")


def test_a_tar_that_would_unpack_to_much_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "MAX_FILE", 4000)
    path = tmp_path / "big.tar.gz"
    with tarfile.open(path, "w:gz") as f:
        info = tarfile.TarInfo("anything")
        info.size = 8000
        f.addfile(info, io.BytesIO(bytes(8000)))
    refused(lambda: load(str(path)), "anything has", "more than the limit")


# --- .npz

@pytest.mark.parametrize("test, save", [("test", np.savez), ("val", np.savez_compressed)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz(tmp_path, test, save, order):
    x, y, tx, ty = arrays()
    save(tmp_path / "d.npz", train_images=np.asarray(x, order=order), train_labels=y.astype(np.uint8),
         class_names=np.array(["ape", "bee", "cat"]), other=np.arange(9),
         **{f"{test}_images": tx, f"{test}_labels": ty})
    data = load(str(tmp_path / "d.npz"))
    assert torch.equal(data.train.permute(0, 2, 3, 1), torch.from_numpy(x)) and data.classes == ("ape", "bee", "cat")
    assert torch.equal(data.test.permute(0, 2, 3, 1), torch.from_numpy(tx)) and data.test_labels.tolist() == ty.tolist()


def npy(header: bytes, content: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


HUGE = b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d, 9, 9, 3)}"


class Trap:
    def __reduce__(self):
        return pytest.fail, ("a pickle was executed",)


@pytest.mark.parametrize("member, words", [
    (("train_images.npy", npy(HUGE % 10 ** 6, b"1" * 60)), ["damaged", "has not the bytes of its shape"]),
    (("train_images.npy", npy(HUGE % 10 ** 12, b"1" * 60)), ["train_images of", "more than the limit of 16 GiB"]),
    (("train_images.npy", npy(HUGE % -1, b"1" * 60)), ["damaged"]),
    (("train_images.npy", b"nothing"), ["damaged"]),
    (("test_labels.npy", b""), ["damaged"]),
    (("test_labels.npy", None), ["has no test_labels", "val_labels"])])
def test_arrays_that_lie_are_refused_before_memory_is_taken(tmp_path, member, words):
    x, y, tx, ty = arrays()
    np.savez(tmp_path / "d.npz", train_images=x, train_labels=y, test_images=tx, test_labels=ty)
    with zipfile.ZipFile(tmp_path / "d.npz") as old, zipfile.ZipFile(tmp_path / "e.npz", "w") as new:
        for name in old.namelist():
            if name != member[0]:
                new.writestr(name, old.read(name))
        if member[1] is not None:
            new.writestr(*member)
    refused(lambda: load(str(tmp_path / "e.npz")), *words)


def test_pickles_are_never_read(tmp_path):
    x, y, tx, ty = arrays()
    np.savez(tmp_path / "d.npz", train_images=x, train_labels=np.array([Trap()] * 6, dtype=object), test_images=tx,
             test_labels=ty)
    refused(lambda: load(str(tmp_path / "d.npz")), "train_labels of", "pickled", "never read")


def test_what_is_no_npz(tmp_path):
    (tmp_path / "d.npz").write_bytes(b"PK\x03\x04 and nothing")
    refused(lambda: load(str(tmp_path / "d.npz")), "d.npz is no .npz file, or a damaged one")
    refused(lambda: load(str(tmp_path / "e.npz")), "does not exist")
    x, y, tx, ty = arrays()
    np.savez(tmp_path / "d.npz", train_images=x, train_labels=y, test_images=tx, test_labels=ty, class_names=y)
    refused(lambda: npz.read(tmp_path / "d.npz"), "class_names", "text")
    content = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(content[:200] + bytes([content[200] ^ 255]) + content[201:])
    refused(lambda: npz.read(tmp_path / "d.npz"), "damaged", "CRC")


# --- class folders

def write_tree(root, names, side=8):
    colours = {}
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colours[name] = (10 * i % 256, 20 * i % 256, 99)
        Image.new("RGB", (side, side), colours[name]).save(path)
    return colours


@pytest.mark.parametrize("test", ["test", "val"])
@pytest.mark.parametrize("zipped", [False, True])
def test_train_and_test_folders(tmp_path, test, zipped):
    names = [f"{part}/{c}/{i}.png" for part, n in (("train", 3), (test, 2)) for c in ("dog", "ant") for i in range(n)]
    colours = write_tree(tmp_path / "d", names)
    path = tmp_path / "d"
    if zipped:
        path = tmp_path / "d.zip"
        with zipfile.ZipFile(path, "w") as z:
            for n in names:
                z.write(tmp_path / "d" / n, n)
    data = load(str(path))
    assert data.classes == ("ant", "dog") and data.name == "d"
    for x, labels, part, n in ((data.train, data.train_labels, "train", 3), (data.test, data.test_labels, test, 2)):
        want = [(f"{part}/{c}/{i}.png", k) for k, c in enumerate(("ant", "dog")) for i in range(n)]
        assert labels.tolist() == [k for _, k in want]
        assert [tuple(p[:, 0, 0].tolist()) for p in x] == [colours[name] for name, _ in want]


@pytest.mark.parametrize("held_out, n", [(0.2, 2), (0.01, 1), (0.99, 9), (0.5, 5)])
def test_a_part_of_each_class_is_held_out(tmp_path, held_out, n):
    colours = write_tree(tmp_path / "d", [f"{c}/{i}.png" for c in ("x", "y") for i in range(10)])
    data = load(str(tmp_path / "d"), held_out=held_out)
    assert data.test_labels.bincount().tolist() == [n, n] and data.train_labels.bincount().tolist() == [10 - n] * 2
    seen = [tuple(p[:, 0, 0].tolist()) for x in (data.train, data.test) for p in x]
    assert sorted(seen) == sorted(colours.values())     # each once
    again = load(str(tmp_path / "d"), held_out=held_out)
    assert torch.equal(again.test, data.test)


def test_pictures_of_other_sizes_and_kinds_are_made_alike(tmp_path):
    write_tree(tmp_path / "d", [f"{c}/{i}.png" for c in "xy" for i in range(3)])
    wide = Image.new("L", (20, 10), 50)
    wide.paste(200, (5, 0, 15, 10))
    wide.save(tmp_path / "d/x/0.png")       # grey, and its centre square is of one grey
    refused(lambda: load(str(tmp_path / "d")), "mixed sizes", "20x10", "image.size=")
    refused(lambda: load(str(tmp_path / "d"), size=6, resize="nearest"), "mixed sizes", "image.resize=lanczos")
    for path in tmp_path.glob("d/*/*.png"):
        wide.save(path)
    with pytest.raises(InputError) as e:        # of one size, but not square: one of them tells it
        load(str(tmp_path / "d"))
    assert str(e.value).count("20x10") == 1
    write_tree(tmp_path / "d", [f"{c}/{i}.png" for c in "xy" for i in range(3)])
    wide.save(tmp_path / "d/x/0.png")
    data = load(str(tmp_path / "d"), size=6)
    assert data.size == 6 and any(bool((p == 200).all()) for x in (data.train, data.test) for p in x)


@pytest.mark.parametrize("names, words", [
    (["x/0.png", "x/1.png"], ["one class, x"]), (["x/0.png", "x/1.png", "y/0.png"], ["class y has one picture"]),
    (["0.png", "x/1.png"], ["0.png lies in no class folder"]),
    (["train/x/0.png", "train/y/0.png"], ["neither test nor val"]),
    (["train/x/0.png", "train/y/0.png", "val/x/0.png"], ["class y is in train/ and not in val/"]),
    (["train/x/0.png", "test/z/0.png", "test/x/0.png"], ["class z is in test/ and not in train/"]),
    (["train/0.png", "test/x/0.png"], ["0.png lies in no class folder"])])
def test_folders_that_hold_no_classes(tmp_path, names, words):
    write_tree(tmp_path / "d", names)
    refused(lambda: load(str(tmp_path / "d")), *words)


def test_other_mistakes_with_folders(tmp_path):
    (tmp_path / "d").mkdir()
    refused(lambda: load(str(tmp_path / "d")), "holds no picture")
    write_tree(tmp_path / "d", [f"{c}/{i}.png" for c in "xy" for i in range(3)])
    for bad in (0, 1, "half"):
        refused(lambda bad=bad: load(str(tmp_path / "d"), held_out=bad), "image.held_out")
    (tmp_path / "d/y/1.png").write_bytes(b"no picture")
    refused(lambda: load(str(tmp_path / "d")), "y/1.png is no picture")


def test_a_changed_picture_in_a_class_folder_is_another_run(tmp_path):
    write_tree(tmp_path / "d", [f"{c}/{i}.png" for c in "xy" for i in range(3)])

    def folder():
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return run_folder(compose("config", ["task=classify", "image=labelled", f"image.path={tmp_path / 'd'}"]))

    before = folder()
    assert before.name.startswith("classify-d-classifier-none-s0-") and folder() == before
    Image.new("RGB", (8, 8), "red").save(tmp_path / "d/y/2.png")
    assert folder() != before


# --- what ships, and what LIPFW_DATA has

def test_two_classes_ship_with_scikit_image():
    from skimage.data import lfw_subset

    data, pictures = lfw_labelled.load(size=None), np.rint(lfw_subset() * 255)
    assert data.classes == ("face", "other") and data.size == 25
    assert data.train_labels.bincount().tolist() == [80, 80] and data.test_labels.bincount().tolist() == [20, 20]
    assert np.array_equal(data.test[:, 1].numpy(), pictures[4::5])
    assert torch.equal(lfw_labelled.load().train[:, :, ::2, ::2], data.train)


def test_the_small_sets_are_looked_for_in_lipfw_data(tmp_path, monkeypatch):
    monkeypatch.delenv("LIPFW_DATA", raising=False)
    refused(lambda: subset.load("cifar10_small"), "LIPFW_DATA is not set", "image=lfw_labelled")
    x, y, tx, ty = arrays(side=32)
    (tmp_path / "imagenet20_small").mkdir()
    np.savez(tmp_path / "imagenet20_small/imagenet20_small.npz", train_images=x, train_labels=y, val_images=tx,
             val_labels=ty)
    monkeypatch.setenv("LIPFW_DATA", str(tmp_path))
    data = subset.load("imagenet20_small")
    assert isinstance(data, Labelled) and data.name == "imagenet20_small" and data.size == 32
    refused(lambda: subset.load("cifar10_small"), "does not exist", "cifar10_small/cifar10_small.npz")
