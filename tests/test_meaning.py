"""A restored picture's colours mean what the given one's do, and it is printed as large."""
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image, ImageCms

import lipfw
from lipfw.configs import CONF
from lipfw.folder import run_folder
from lipfw.image import png16
from lipfw.image.kinds import given
from lipfw.image.meaning import Meaning, of_file
from lipfw.image.picture import Picture, finish
from lipfw.image.read import read
from lipfw.image.write import write_png
from lipfw.run import run

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TINY = ["trainer=smoke", "logger=none", "fit.steps=2", "prior.channels=4", "prior.depth=2", "trainer.progress=false"]


def picture(height=16, width=20, channels=3, dtype=np.uint8):
    top = np.iinfo(dtype).max + 1
    return np.random.default_rng(0).integers(0, top, (height, width, channels), dtype).squeeze()


def said(path):
    with Image.open(path) as image:
        image.load()
        return image.info.get("icc_profile"), image.info.get("dpi")


@pytest.mark.parametrize(("task", "dtype", "times"), [
    (["task=denoise"], np.uint8, 1), (["task=superres", "task.factor=2"], np.uint16, 2)], ids=["8 bits", "16 bits"])
def test_a_run_keeps_profile_and_resolution(tmp_path, monkeypatch, task, dtype, times):
    monkeypatch.chdir(tmp_path)
    if dtype == np.uint8:
        Image.fromarray(picture()).save("mine.png", icc_profile=SRGB, dpi=(300, 150))
    else:
        png16.write(tmp_path / "mine.png", picture(dtype=dtype))
        png16.insert(tmp_path / "mine.png", Meaning(SRGB, (300, 150)).chunks(3))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [*TINY, "image=file", "image.path=mine.png", "image.degraded=true", "image.size=null",
                                 *task])
    run(cfg)
    profile, dpi = said(run_folder(cfg) / "restored.png")
    assert profile == SRGB and dpi == pytest.approx((300 * times, 150 * times), abs=0.02 * times)
    data = (run_folder(cfg) / "restored.png").read_bytes()
    assert png16.header(data)[0] == 8 * np.dtype(dtype).itemsize and read(run_folder(cfg) / "restored.png")
    assert said(run_folder(cfg) / "compare.png") == (None, None)
    Image.open(run_folder(cfg) / "restored.png").verify()       # the checksums


def test_a_restored_file_or_image_is_saved_with_them(tmp_path):
    image = Image.fromarray(picture())
    image.save(tmp_path / "mine.jpg", icc_profile=SRGB, dpi=(72, 72))
    with Image.open(tmp_path / "mine.jpg") as opened:
        for given in (tmp_path / "mine.jpg", opened):
            lipfw.restore(given, steps=2, channels=4, depth=2, device="cpu").save(tmp_path / "out.png")
            profile, dpi = said(tmp_path / "out.png")
            assert profile == SRGB and dpi == pytest.approx((72, 72), abs=0.02)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_files_of_all_kinds_are_whole(tmp_path, bits, channels, alpha):
    """A grey picture can't have a profile of RGB: PNG forbids it, and what it should mean nobody can say."""
    x, a = torch.rand(1, channels, 6, 5), torch.rand(1, 1, 6, 5) if alpha else None
    write_png(tmp_path / "plain.png", x, a, bits)
    write_png(tmp_path / "meant.png", x, a, bits, Meaning(SRGB, (100, 200)))
    plain, meant = read(tmp_path / "plain.png"), read(tmp_path / "meant.png")
    assert torch.equal(plain.pixels, meant.pixels) and plain.meaning == Meaning() and meant.bits == bits
    assert alpha == (meant.alpha is not None) and (not alpha or torch.equal(plain.alpha, meant.alpha))
    assert meant.meaning.profile == (SRGB if channels == 3 else None)
    assert meant.meaning.dpi == pytest.approx((100, 200), abs=0.02)
    assert len((tmp_path / "plain.png").read_bytes()) < len((tmp_path / "meant.png").read_bytes())


def test_what_is_turned_is_turned_in_print_too_and_odd_values_are_none(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(picture()).save(tmp_path / "turned.jpg", dpi=(300, 150), exif=exif)
    assert read(tmp_path / "turned.jpg").size == (20, 16) and of_file(tmp_path / "turned.jpg").dpi == (150, 300)
    with Image.open(tmp_path / "turned.jpg") as image:
        assert given(image)[0].meaning.dpi == (150, 300)
    out = io.BytesIO()
    Image.fromarray(picture()).save(out, "TIFF", icc_profile=b"short", dpi=(0, 0))
    (tmp_path / "odd.tif").write_bytes(out.getvalue())
    assert read(tmp_path / "odd.tif").meaning == Meaning()
    Image.fromarray(picture()).save(tmp_path / "huge.jpg", icc_profile=SRGB[:128] + bytes(2_000_000))
    large = read(tmp_path / "huge.jpg")     # Pillow would not open a PNG with such a profile
    write_png(tmp_path / "huge.png", large.pixels, None, 8, large.meaning)
    assert torch.equal(read(tmp_path / "huge.png").pixels, large.pixels)


def test_a_resized_picture_is_printed_as_large_as_the_part_that_is_left():
    one = replace(Picture("a", torch.rand(1, 3, 32, 48)), meaning=Meaning(None, (300.0, 150.0)))
    (half,), (same,) = finish([one], size=16), finish([one])
    assert half.meaning.dpi == (150, 75) and same.meaning == one.meaning
