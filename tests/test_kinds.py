"""Pictures of every kind come back as they were given, whatever is done to their pixels in between."""
import numpy as np
import pytest
import torch
from hypothesis import given as cases
from hypothesis import settings
from hypothesis import strategies as st
from PIL import Image

from lipfw.errors import InputError
from lipfw.image.kinds import given
from lipfw.image.read import read
from lipfw.image.write import write_png

SIDES = st.integers(5, 9)       # more than four: channels can be told from rows


@st.composite
def arrays(draw, dtypes):
    """An array (h, w, c) of a type, its floats in [0, 1]."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    rng = np.random.default_rng(draw(st.integers(0, 2 ** 32 - 1)))
    values = rng.random((draw(SIDES), draw(SIDES), draw(st.integers(1, 4))))
    return (values * np.iinfo(dtype).max).round().astype(dtype) if dtype.kind == "u" else values.astype(dtype)


def laid_out(a, layout):
    return {"hw": lambda: a[..., 0], "hwc": lambda: a, "chw": lambda: a.transpose(2, 0, 1),
            "1chw": lambda: a.transpose(2, 0, 1)[None], "1hwc": lambda: a[None]}[layout]()


@settings(max_examples=150, deadline=None)
@cases(arrays(["uint8", "uint16", "float16", "float32", "float64"]),
       st.sampled_from(["hw", "hwc", "chw", "1chw", "1hwc"]), st.sampled_from(["numpy", "torch"]))
def test_arrays_and_tensors_come_back(a, layout, kind):
    whole = laid_out(a, layout)
    value = whole if kind == "numpy" else torch.from_numpy(np.ascontiguousarray(whole))
    picture, back = given(value)
    h, w, c = a.shape
    c = 1 if layout == "hw" else c
    top = np.iinfo(a.dtype).max if a.dtype.kind == "u" else 1
    colours = {1: 1, 2: 1, 3: 3, 4: 3}[c]
    assert picture.pixels.shape == (1, colours, h, w) and (picture.alpha is not None) == (c in (2, 4))
    np.testing.assert_allclose(picture.pixels[0].permute(1, 2, 0).numpy(), a[..., :colours] / top, atol=1e-6)
    again = back(picture.pixels, picture.alpha)
    assert type(again) is type(value) and again.dtype == value.dtype and again.shape == value.shape
    np.testing.assert_allclose(np.asarray(again).astype(float), np.asarray(value).astype(float),
                               atol=0 if top > 1 else 1e-6)


def test_an_array_of_another_byte_order():
    a = np.arange(0, 60_000, 1000, dtype=">u2").reshape(6, 10)
    picture, back = given(a)
    again = back(picture.pixels, None)
    assert again.dtype == a.dtype and (again == a).all()
    assert picture.pixels[0, 0].numpy() == pytest.approx(a / 65535)


def test_a_tensor_of_another_type_device_and_graph():
    x = torch.rand(3, 6, 7, dtype=torch.bfloat16).requires_grad_()
    picture, back = given(x)
    again = back(picture.pixels, None)
    assert again.dtype == torch.bfloat16 and again.device == x.device and not again.requires_grad
    assert torch.equal(again, x)


@pytest.mark.parametrize("mode, back_as", [
    ("1", "L"), ("L", "L"), ("LA", "LA"), ("P", "RGB"), ("RGB", "RGB"), ("RGBA", "RGBA"), ("CMYK", "RGB"),
    ("YCbCr", "RGB"), ("I;16", "I;16"), ("I", "I"), ("F", "F")])
def test_pil_images_come_back(mode, back_as):
    rng = np.random.default_rng(0)
    if mode in ("I;16", "I", "F"):
        values = rng.integers(0, 65536, (6, 7))
        image = Image.fromarray((values / 65535).astype(np.float32) if mode == "F" else
                                values.astype(np.uint16 if mode == "I;16" else np.int32))
    else:
        image = Image.fromarray(rng.integers(0, 256, (6, 7, 4), dtype=np.uint8))
        image = (image if "A" in mode else image.convert("RGB")).convert(mode)
    assert image.mode == mode
    picture, back = given(image)
    again = back(picture.pixels, picture.alpha)
    assert isinstance(again, Image.Image) and again.mode == back_as and again.size == image.size
    expected = np.asarray(image.convert(back_as) if mode != "I;16" else image)
    np.testing.assert_allclose(np.asarray(again), expected, atol=1e-6)
    large = back(torch.nn.functional.interpolate(picture.pixels, scale_factor=2), None if picture.alpha is None else
                 torch.nn.functional.interpolate(picture.alpha, scale_factor=2))
    assert large.mode == back_as and large.size == (14, 12)


def test_a_pil_image_is_turned_as_its_exif_says(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(4, 6)
    exif = Image.Exif()
    exif[274] = 6       # stored on its side
    Image.fromarray(array).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        picture, back = given(image)
    again = back(picture.pixels, None)
    np.testing.assert_array_equal(np.asarray(again), np.rot90(array, -1))
    assert again.getexif().get(274, 1) == 1
    np.testing.assert_array_equal(read(tmp_path / "a.png").pixels, picture.pixels)      # as from the file


def test_a_pil_image_keeps_its_colour_profile():
    for mode, kept in (("RGB", True), ("CMYK", False)):     # a profile of inks is none of light
        image = Image.new(mode, (6, 7))
        image.info["icc_profile"] = b"a profile"
        picture, back = given(image)
        assert (back(picture.pixels, None).info.get("icc_profile") == b"a profile") == kept


@pytest.mark.parametrize("bits, dtype", [(8, np.uint8), (16, np.uint16)])
def test_a_file_comes_back_as_an_array_of_its_depth(tmp_path, bits, dtype):
    write_png(tmp_path / "a.png", torch.rand(1, 3, 6, 7), torch.rand(1, 1, 6, 7), bits)
    picture, back = given(tmp_path / "a.png")
    again = back(picture.pixels, picture.alpha)
    assert again.dtype == dtype and again.shape == (6, 7, 4)


@pytest.mark.parametrize("bad, told", [
    (np.zeros((6, 6, 5)), "(6, 6, 5) of float64"), (np.zeros(4), "(4,) of float64"), (np.zeros((0, 5)), "(0, 5)"),
    (np.full((6, 6), 255.0), "0, 1], got values from 255 to 255"), (np.full((6, 6), np.nan), "must be finite"),
    (np.zeros((6, 6), bool), "of bool"), (np.zeros((6, 6), np.int64), "of int64"), (None, "NoneType None"),
    (torch.zeros(2, 3, 6, 6), "(2, 3, 6, 6)"), (torch.zeros(6, 6, dtype=torch.int32), "of torch.int32"),
    ([[1, 2], [3]], "list [[1, 2], [3]]"), (torch.zeros(6, 6, device="meta"), "a meta one"),
    (torch.zeros(6, 6).to_sparse(), "a sparse_coo one"),
    (torch.full((3, 6, 6), -0.1), "from -0.1 to -0.1"), (Image.new("I", (3, 3), 70000), "[0, 65535]"),
    (Image.new("F", (3, 3), 2.0), "in [0, 1]"), ("nowhere.png", "nowhere.png does not exist")])
def test_what_is_no_picture_is_refused_in_one_line(bad, told):
    with pytest.raises(InputError) as e:
        given(bad)
    assert told in str(e.value) and "\n" not in str(e.value)
