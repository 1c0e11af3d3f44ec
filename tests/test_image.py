"""Pictures: read exactly or refused, finished, written. Files come from Pillow, tifffile or bytes made by hand."""
import io
import lzma
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageFile, ImageOps

from lipfw.errors import InputError
from lipfw.image import file, folder, skimage
from lipfw.image.picture import Picture, finish
from lipfw.image.read import read
from lipfw.image.write import sheet, write_png

RNG = np.random.default_rng(0)
SIZE = (31, 37)  # (H, W): odd and unequal, so that swapped axes show
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
COLOUR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}


def levels(channels=3, dtype=np.uint8, size=SIZE):
    return RNG.integers(0, np.iinfo(dtype).max, (*size, channels), dtype=dtype, endpoint=True)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour_type, raw, extra=b"", interlace=0):
    """A PNG file by the book: signature, IHDR, other chunks, IDAT, IEND."""
    ihdr = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlace)
    chunks = chunk(b"IHDR", ihdr) + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def rows(a):
    return b"".join(b"\0" + row.astype(">u2").tobytes() for row in a)


def png16(a, extra=b"", interlace=0):
    passes = [a[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlace else [a]
    raw = b"".join(rows(p) for p in passes if p.size)
    return png(a.shape[1], a.shape[0], 16, COLOUR_TYPE[a.shape[2]], raw, extra, interlace)


def back(picture, top):
    """The levels of a picture, alpha last, (H, W, C)."""
    x = picture.pixels if picture.alpha is None else torch.cat([picture.pixels, picture.alpha], 1)
    return (x[0].permute(1, 2, 0).double().numpy() * top).round().astype(int)


def fails(words, call, *args, **kwargs):
    """Assert that `call` raises InputError in one line that holds each of `words`."""
    with pytest.raises(InputError) as error:
        call(*args, **kwargs)
    text = str(error.value)
    assert "\n" not in text
    for word in words.split("|"):
        assert word in text, text
    return text


# ---- reading ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("ending, channels", [*((e, c) for e in ("png", "tif") for c in (1, 2, 3, 4)),
                                              ("bmp", 1), ("bmp", 3), ("webp", 3), ("webp", 4)])
def test_lossless_8_bit_files_are_read_exactly(tmp_path, ending, channels):
    a = levels(channels)
    Image.fromarray(a[..., 0] if channels == 1 else a).save(tmp_path / f"x.{ending}", lossless=True, exact=True)
    picture = read(tmp_path / f"x.{ending}")
    assert (back(picture, 255) == a).all() and picture.bits == 8 and picture.name == "x" and not picture.degraded
    assert picture.pixels.dtype == torch.float32 and picture.pixels.shape == (1, 1 if channels < 3 else 3, *SIZE)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_is_what_pillow_decodes(tmp_path, mode):
    Image.fromarray(levels()).resize((37, 31)).convert(mode).save(tmp_path / "x.jpg", quality=90)
    with Image.open(tmp_path / "x.jpg") as image:
        expected = np.asarray(image.convert("L" if mode == "L" else "RGB")).reshape(*SIZE, -1)
    assert (back(read(tmp_path / "x.jpg"), 255) == expected).all()


def test_palette_one_bit_and_first_frame(tmp_path):
    index = levels(1)[..., 0] % 4
    image = Image.fromarray(index, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 8, 7])
    table = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]])
    image.save(tmp_path / "p.png")
    assert (back(read(tmp_path / "p.png"), 255) == table[index]).all()
    image.save(tmp_path / "t.png", transparency=2)
    assert (back(read(tmp_path / "t.png"), 255) == np.dstack([table[index], 255 * (index != 2)])).all()
    image.save(tmp_path / "g.gif", save_all=True, append_images=[Image.new("P", (37, 31), 1)])
    assert (back(read(tmp_path / "g.gif"), 255) == table[index]).all()
    Image.fromarray(index > 1).save(tmp_path / "b.png")
    assert (back(read(tmp_path / "b.png"), 255)[..., 0] == 255 * (index > 1)).all()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_transparent_level_of_grey_png_with_few_bits(tmp_path, depth):
    top = 2 ** depth - 1
    values = np.arange(8) % (top + 1)
    raw = b"\0" + int("".join(f"{v:0{depth}b}" for v in values), 2).to_bytes(depth, "big")
    (tmp_path / "x.png").write_bytes(png(8, 1, depth, 0, raw, chunk(b"tRNS", struct.pack(">H", top))))
    found = back(read(tmp_path / "x.png"), 255)[0]
    assert found.tolist() == [[v * 255 // top, 0 if v == top else 255] for v in values.tolist()]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["8.png", "16.png", "8.tif", "16.tif", "8.jpg"])
def test_exif_orientation(tmp_path, orientation, kind):
    a, path = levels(3, np.uint16 if kind[0] == "1" else np.uint8), tmp_path / f"x{kind}"
    exif = Image.Exif()
    exif[274] = orientation
    if kind == "16.png":
        path.write_bytes(png16(a, chunk(b"eXIf", exif.tobytes()[6:])))
    elif kind.endswith("tif"):
        tifffile.imwrite(path, a, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    else:
        Image.fromarray(a).save(path, exif=exif)
        with Image.open(path) as image:
            a = np.asarray(image)
    index = Image.fromarray(np.arange(31 * 37, dtype=np.int32).reshape(SIZE))
    index.getexif()[274] = orientation
    order = np.asarray(ImageOps.exif_transpose(index))  # Pillow's own turning of the pixels' numbers
    assert (back(read(path), 65535 if kind[0] == "1" else 255) == a.reshape(-1, 3)[order]).all()


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_of_hand_made_bytes_is_exact(tmp_path, channels, interlace):
    a = levels(channels, np.uint16)
    (tmp_path / "x.png").write_bytes(png16(a, interlace=interlace))
    picture = read(tmp_path / "x.png")
    assert (back(picture, 65535) == a).all() and picture.bits == 16


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_png_with_a_transparent_colour(tmp_path, channels):
    a = levels(channels, np.uint16)
    a[0, :5] = a[3, 4]
    key = struct.pack(f">{channels}H", *a[3, 4].tolist())
    (tmp_path / "x.png").write_bytes(png16(a, chunk(b"tRNS", key)))
    shown = (a != a[3, 4]).any(2)
    assert (back(read(tmp_path / "x.png"), 65535) == np.dstack([a, 65535 * shown])).all() and not shown[0, :5].any()


@pytest.mark.parametrize("options", [
    dict(channels=1), dict(channels=1, photometric="miniswhite"), dict(channels=3), dict(channels=4),
    dict(channels=2, extrasamples=["unassalpha"], planarconfig="contig"), dict(channels=3, compression="zlib"),
    dict(channels=3, byteorder=">"), dict(channels=3, planarconfig="separate"), dict(channels=3, bigtiff=True)])
def test_16_bit_tiff(tmp_path, options):
    channels = options.pop("channels")
    a = levels(channels, np.uint16)
    stored = a[..., 0] if channels == 1 else np.moveaxis(a, 2, 0) if "separate" in options.values() else a
    tifffile.imwrite(tmp_path / "x.tif", stored, **{"photometric": "minisblack" if channels < 3 else "rgb", **options})
    picture = read(tmp_path / "x.tif")
    assert (back(picture, 65535) == (65535 - a if "miniswhite" in options.values() else a)).all() and picture.bits == 16


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [SIZE, (*SIZE, 3)])
def test_float_tiff_in_0_1(tmp_path, dtype, shape):
    a = RNG.random(shape).astype(dtype)
    photometric = "rgb" if len(shape) == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "x.tif", a, photometric=photometric)
    picture = read(tmp_path / "x.tif")
    assert np.array_equal(picture.pixels[0].permute(1, 2, 0).numpy(), a.astype(np.float32).reshape(*SIZE, -1))
    assert picture.bits == 16
    for bad in (a * 2, -a, np.full_like(a, np.nan)):
        tifffile.imwrite(tmp_path / "bad.tif", bad, photometric=photometric)
        fails("bad.tif|[0, 1]|divide", read, tmp_path / "bad.tif")


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint32, np.int32])
def test_tiff_of_other_integers_is_refused_by_name(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "x.tif", np.ones(SIZE, dtype))
    fails(f"x.tif|{np.dtype(dtype).name}|not supported|PNG", read, tmp_path / "x.tif")


def test_tiff_without_tifffile_names_the_extra(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "x.tif", levels(3, np.uint16), photometric="rgb")
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    fails("x.tif|pip install 'lipfw[data]'", read, tmp_path / "x.tif")


def test_tiff_that_nothing_here_unpacks_is_refused(tmp_path):
    Image.fromarray(levels(1, np.uint16)[..., 0]).save(tmp_path / "x.tif", compression="tiff_lzw")
    try:
        assert read(tmp_path / "x.tif").bits == 16  # with imagecodecs installed
    except InputError as error:
        assert "x.tif" in str(error) and "imagecodecs" in str(error)


# ---- refusing ---------------------------------------------------------------------------------------------------

def test_files_that_are_no_picture(tmp_path, monkeypatch):
    fails("nothing.png|does not exist", read, tmp_path / "nothing.png")
    fails("is a folder|image=folder", read, tmp_path)
    (tmp_path / "empty.png").touch()
    fails("empty.png|0 bytes", read, tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("hello, this is text\n" * 9)
    fails("text.png|no picture|PNG, JPEG", read, tmp_path / "text.png")
    fails("does not exist", read, tmp_path / "text.png" / "x.png")
    fails("cannot be opened", read, tmp_path / ("x" * 300))
    fails("cannot be opened", read, "a\0b.png")
    os.mkfifo(tmp_path / "pipe.png")
    fails("pipe.png|regular", read, tmp_path / "pipe.png")
    Image.fromarray(levels()).save(tmp_path / "x.ppm")
    fails("x.ppm|PPM is not supported|PNG", read, tmp_path / "x.ppm")
    Image.fromarray(levels()).save(tmp_path / "~x.png")
    monkeypatch.chdir(tmp_path)
    assert read("~x.png").name == "~x"


def test_a_file_without_permission(tmp_path, monkeypatch):
    Image.fromarray(levels()).save(tmp_path / "x.png")

    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)  # chmod does not stop root, who runs tests in containers
    fails("x.png|permission|chmod", read, tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "bmp", "tif", "16.png", "16.tif", "la16.png"])
@pytest.mark.parametrize("kept", [0.03, 0.3, 0.7, 0.97])
def test_truncated_files_are_refused(tmp_path, kind, kept, monkeypatch, caplog, recwarn):
    path = tmp_path / f"x.{kind}"
    if kind.endswith("16.png"):
        path.write_bytes(png16(levels(2 if kind.startswith("la") else 3, np.uint16)))
    elif kind == "16.tif":
        tifffile.imwrite(path, levels(3, np.uint16), photometric="rgb")
    else:
        Image.fromarray(levels()).save(path)
    data = path.read_bytes()
    path.write_bytes(data[:int(len(data) * kept)])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # another library may have set it
    fails(path.name, read, path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True and not recwarn.list and not caplog.records


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_one_wrong_bit_in_a_png_is_refused(tmp_path, depth, channels):
    a = levels(channels, np.uint16 if depth == 16 else np.uint8)
    if depth == 16:
        data = bytearray(png16(a))
    else:
        out = io.BytesIO()
        Image.fromarray(a[..., 0] if channels == 1 else a).save(out, "PNG")
        data = bytearray(out.getvalue())
    data[len(data) // 2] ^= 1
    (tmp_path / "x.png").write_bytes(data)
    fails("x.png|damaged", read, tmp_path / "x.png")


@pytest.mark.parametrize("change", ["checksum", "no end"])
def test_an_8_bit_png_is_checked_beyond_what_pillow_loads(tmp_path, change):
    Image.fromarray(levels()).save(tmp_path / "x.png")
    data = bytearray((tmp_path / "x.png").read_bytes())
    if change == "checksum":
        data[-13] ^= 1  # the last byte of the pixels' CRC, before the 12 bytes of IEND
    else:
        del data[-12:]
    (tmp_path / "x.png").write_bytes(data)
    Image.open(tmp_path / "x.png").load()  # Pillow alone takes both
    fails("x.png|damaged", read, tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["png", "16.png", "tif", "16.tif"])
def test_the_limit_is_checked_before_decoding(tmp_path, kind, monkeypatch, recwarn):
    """The files claim 60000 x 50000 pixels and hold next to none: decoding them would fail otherwise."""
    path = tmp_path / f"bomb.{kind}"
    if kind == "tif":
        path.write_bytes(tiff_header(60000, 50000))
    elif kind == "16.tif":
        path.write_bytes(tiff_header(60000, 50000, bits=16))
    else:
        path.write_bytes(png(60000, 50000, 16 if kind == "16.png" else 8, 2, b"\0" * 9))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    fails("bomb|60000x50000|16777216|image.size=|image.max_pixels=3000000000", file.load, path)
    fails("bomb|60000x50000|100000000|image.size=|image.max_pixels=3000000000", file.load, path, size=64)
    assert Image.MAX_IMAGE_PIXELS == 1000 and not recwarn.list


def test_a_gif_whose_frame_is_larger_than_it_says(tmp_path):
    Image.new("P", (10, 10)).save(tmp_path / "x.gif")
    data = bytearray((tmp_path / "x.gif").read_bytes())
    at = data.index(b",\0\0\0\0", 13)
    data[at + 5:at + 9] = struct.pack("<HH", 65535, 65535)
    (tmp_path / "x.gif").write_bytes(data)
    fails("x.gif|65535x65535", read, tmp_path / "x.gif")


def tiff_of(data, *, width=10, height=10, compression=8, tile=None):
    tags = [(256, 4, width), (257, 4, height), (258, 3, 16), (259, 3, compression), (262, 3, 1), (277, 3, 1)]
    tags += ([(322, 4, tile), (323, 4, tile), (324, 4, 250), (325, 4, len(data))] if tile else
             [(273, 4, 250), (278, 4, height), (279, 4, len(data))])
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return (head + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in sorted(tags))).ljust(250, b"\0") + data


def test_a_tiff_that_unpacks_to_more_than_its_pixels(tmp_path):
    path, pixels = tmp_path / "x.tif", levels(1, np.uint16, (10, 10))
    path.write_bytes(tiff_of(zlib.compress(pixels.tobytes())))
    assert np.array_equal(back(read(path), 65535), pixels)
    path.write_bytes(tiff_of(zlib.compress(bytes(1 << 27), 9)))
    tracemalloc.start()
    fails("x.tif|damaged|unpacks to more than its pixels", read, path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()
    path.write_bytes(tiff_of(bytes(1000), compression=1, tile=1 << 17))
    fails("x.tif|131072x131072", read, path)
    path.write_bytes(tiff_of(lzma.compress(bytes(1000)), compression=34925))
    fails("x.tif|not supported", read, path)


@pytest.mark.parametrize("kind", ["16.png", "tif"])
def test_a_file_is_not_read_whole_if_it_is_larger_than_its_pixels_can_be(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    path.write_bytes(png16(levels(3, np.uint16)) if kind == "16.png" else tiff_of(bytes(200), compression=1))
    if kind == "16.png":
        assert read(path).bits == 16
    os.truncate(path, 1 << 40)      # takes no room on the disk
    fails(f"x.{kind}|", read, path, max_pixels=2000)


def tiff_header(width, height, bits=8):
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 200), (277, 3, 1),
            (278, 4, height), (279, 4, 3_000_000_000)]
    return (b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tags)
            + struct.pack("<I", 0) + bytes(200))


def test_pillows_own_limit_does_not_bind(tmp_path, monkeypatch, recwarn):
    Image.fromarray(levels()).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow alone would raise DecompressionBombError
    assert read(tmp_path / "x.png", max_pixels=31 * 37).size == SIZE and not recwarn.list
    fails("x.png|37x31|1146", read, tmp_path / "x.png", max_pixels=31 * 37 - 1)


# ---- Picture and finish -----------------------------------------------------------------------------------------

def picture(channels=3, size=SIZE, alpha=False, name="x"):
    return Picture(name, torch.rand(1, channels, *size), torch.rand(1, 1, *size) if alpha else None)


@pytest.mark.parametrize("words, change", [
    ("float32|(3, 5, 5)", dict(pixels=torch.rand(3, 5, 5))), ("1 or 3", dict(pixels=torch.rand(1, 2, 5, 5))),
    ("float64", dict(pixels=torch.rand(1, 3, 5, 5).double())),
    ("[0, 1]|255", dict(pixels=torch.ones(1, 1, 5, 5) * 255)),
    ("[0, 1]|nan", dict(pixels=torch.full((1, 1, 5, 5), torch.nan))), ("bits|8, 16|12", dict(bits=12)),
    ("(1, 1, 5, 6)", dict(alpha=torch.rand(1, 1, 5, 6))), ("alpha", dict(alpha=torch.rand(1, 3, 5, 5))),
    ("shape", dict(pixels=torch.rand(1, 3, 0, 5))), ("name", dict(name="")), ("degraded", dict(degraded="no"))])
def test_picture_checks_itself(words, change):
    fails(words, Picture, **{"name": "x", "pixels": torch.rand(1, 3, 5, 5), **change})


@pytest.mark.parametrize("words, options", [
    ("image.size|at least 8|7", dict(size=7)), ("image.size|1.5", dict(size=1.5)), ("image.size|True", dict(size=True)),
    ("image.size", dict(size="64")), ("image.max_pixels|0", dict(max_pixels=0)),
    ("image.max_pixels", dict(max_pixels=1e6)),
    ("image.fit_size|pad, crop|did you mean pad", dict(fit_size="padd")), ("image.degraded", dict(degraded="maybe")),
    ("x: 37x31|image.max_pixels=1147", dict(max_pixels=1146)), ("x: 64x64|image.size", dict(max_pixels=4095, size=64)),
    ("x: 37x31|32x32|image.fit_size=pad", dict(fit_size="crop"))])
def test_finish_refuses(words, options):
    fails(words, finish, [picture()], **options)


def test_finish_leaves_a_picture_as_it_is():
    p = picture(alpha=True)
    q, = finish([p], degraded=True)
    assert torch.equal(p.pixels, q.pixels) and torch.equal(p.alpha, q.alpha) and q.degraded and q.name == "x"
    square = picture(size=(16, 16))
    assert torch.equal(finish([square], size=16)[0].pixels, square.pixels)


def test_crop_is_the_centre_multiple_of_32():
    p = picture(size=(71, 133), alpha=True)
    q, = finish([p], fit_size="crop")
    assert torch.equal(q.pixels, p.pixels[:, :, 3:67, 2:130]) and torch.equal(q.alpha, p.alpha[:, :, 3:67, 2:130])


def test_size_is_the_centre_square_by_lanczos():
    p = picture(size=(37, 60), alpha=True)
    q, = finish([p], size=16)
    assert q.pixels.shape == (1, 3, 16, 16) and q.alpha.shape == (1, 1, 16, 16)
    at = (np.arange(37) + 0.5 - (np.arange(16)[:, None] + 0.5) * 37 / 16) * 16 / 37  # the formula, as two matrices
    weights = np.where(abs(at) < 3, np.sinc(at) * np.sinc(at / 3), 0)
    weights = torch.from_numpy(weights / weights.sum(1, keepdims=True))
    for found, given in ((q.pixels, p.pixels), (q.alpha, p.alpha)):
        expected = (weights @ given[..., 11:48].double() @ weights.T).clamp(0, 1)
        assert (found - expected).abs().max() < 1e-5
    stripes = torch.zeros(1, 1, 64, 64)
    stripes[..., ::2] = 1  # finer than the small grid: an anti-aliased filter leaves grey
    grey = finish([Picture("s", stripes)], size=16)[0].pixels[..., 2:-2]
    assert (grey - 0.5).abs().max() < 0.02
    assert finish([picture(size=(8, 8))], size=20)[0].pixels.shape == (1, 3, 20, 20)


def test_crop_follows_size():
    assert finish([picture(size=(99, 120))], size=70, fit_size="crop")[0].pixels.shape == (1, 3, 64, 64)


def test_grey_among_rgb_becomes_rgb():
    grey, colour = picture(1), picture(3)
    q, r = finish([grey, colour])
    assert torch.equal(q.pixels, grey.pixels.repeat(1, 3, 1, 1)) and torch.equal(r.pixels, colour.pixels)
    assert finish([grey])[0].pixels.shape[1] == 1


def test_box_is_the_part_that_is_used():
    p = picture(alpha=True)
    q, = finish([p], box=[2, 3, 20, 11])
    assert torch.equal(q.pixels, p.pixels[:, :, 3:14, 2:22]) and torch.equal(q.alpha, p.alpha[:, :, 3:14, 2:22])
    part = Picture("x", p.pixels[:, :, 3:14, 2:22].contiguous())
    assert torch.equal(finish([p], box=[2, 3, 20, 11], size=8)[0].pixels, finish([part], size=8)[0].pixels)
    assert finish([p], box=[0, 0, 37, 31])[0].size == SIZE
    assert finish([p], box=[2, 3, 20, 11], max_pixels=220)[0].size == (11, 20)


@pytest.mark.parametrize("words, box", [
    ("x: image.box=[18, 0, 20, 31] reaches to column 38|37x31 pixels", [18, 0, 20, 31]), ("row 32", [0, 1, 5, 31]),
    ("[left, top, width, height]|[0, 0, 5]", [0, 0, 5]), ("image.box|0]", [0, 0, 5, 0]),
    ("image.box|True", [0, 0, 5, True]), ("image.box|'0,0,5,5'", "0,0,5,5"), ("image.box|7", 7)])
def test_box_refuses(words, box):
    fails(words, finish, [picture()], box=box)


def test_every_source_takes_a_box(tmp_path):
    Image.fromarray(levels()).save(tmp_path / "a.png")
    for load, path in ((file.load, tmp_path / "a.png"), (folder.load, tmp_path), (skimage.load, "camera")):
        assert load(path, box=[1, 2, 9, 10])[0].size == (10, 9)


# ---- sources ----------------------------------------------------------------------------------------------------

def test_file(tmp_path):
    a = levels()
    Image.fromarray(a).save(tmp_path / "my cat.png")
    p, = file.load(str(tmp_path / "my cat.png"), degraded=True)
    assert p.name == "my cat" and p.degraded and (back(p, 255) == a).all()
    assert file.load(tmp_path / "my cat.png", size=8, max_pixels=64)[0].size == (8, 8)  # shrunk, so not over the limit
    fails("image.size", file.load, tmp_path / "my cat.png", size=3)
    fails("image.max_pixels", file.load, tmp_path / "my cat.png", max_pixels="many")


def test_folder(tmp_path):
    for name in ("b.png", "a.JPG", "a.png", "a_2.png", "A.bmp"):
        Image.fromarray(levels()).save(tmp_path / name)
    Image.fromarray(levels(1)[..., 0]).save(tmp_path / "c.png")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "._b.png").write_text("what macOS leaves on other disks")
    (tmp_path / "sub.png").mkdir()
    pictures = folder.load(tmp_path)
    assert [p.name for p in pictures] == ["A", "a_2", "a_3", "a_2_2", "b", "c"]
    assert all(p.pixels.shape == (1, 3, *SIZE) for p in pictures)
    (tmp_path / "broken.png").write_bytes((tmp_path / "b.png").read_bytes()[:500])
    fails("broken.png", folder.load, tmp_path)


def test_folder_refuses(tmp_path):
    fails("holds no picture|.png", folder.load, tmp_path)
    fails("does not exist", folder.load, tmp_path / "nothing")
    Image.fromarray(levels()).save(tmp_path / "x.png")
    fails("is a file|image=file", folder.load, tmp_path / "x.png")


def test_skimage_loads_what_the_library_ships(monkeypatch):
    from skimage import data

    def no_network(*args, **kwargs):
        raise AssertionError("a picture was downloaded")

    monkeypatch.setattr("socket.getaddrinfo", no_network)
    for name in skimage.NAMES:
        p, = skimage.load(name)
        expected = getattr(data, name)()
        assert (back(p, 255) == expected.reshape(*p.size, -1)).all() and p.name == name, name
    fails("image.name|astronaut|rocket|did you mean camera", skimage.load, "kamera")


# ---- writing ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_write_then_read_is_exact(tmp_path, bits, alpha, channels):
    top = 2 ** bits - 1
    values = torch.from_numpy(levels(channels + alpha, np.uint16 if bits == 16 else np.uint8).astype(np.int64))
    x = (values.permute(2, 0, 1)[None] / top).float()
    write_png(tmp_path / "x.png", x[:, :channels], x[:, channels:] if alpha else None, bits=bits)
    p = read(tmp_path / "x.png")
    assert (back(p, top) == values.numpy()).all() and p.bits == bits and (p.alpha is not None) == alpha
    head = (tmp_path / "x.png").read_bytes()[16:29]
    assert struct.unpack(">IIBB", head[:10]) == (37, 31, bits, COLOUR_TYPE[channels + alpha])
    assert list(tmp_path.iterdir()) == [tmp_path / "x.png"]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_files_hold_the_bytes_that_the_standard_asks_for(tmp_path, channels):
    """Unpacked here by hand; a picture of one row and one value a channel needs no filter but None or Sub."""
    x = torch.tensor([[0x1234, 0x0001, 0xFEDC, 0x8001][:channels]]).reshape(1, channels, 1, 1) / 65535
    colours = channels - 1 + channels % 2
    write_png(tmp_path / "x.png", x[:, :colours], x[:, colours:] if channels > colours else None, bits=16)
    data, raw, at = (tmp_path / "x.png").read_bytes(), b"", 8
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        assert data[at + 8 + length:at + 12 + length] == struct.pack(">I", zlib.crc32(kind + body))
        raw, at = raw + body if kind == b"IDAT" else raw, at + 12 + length
    assert zlib.decompress(raw)[1:] == bytes.fromhex("12340001fedc8001")[:2 * channels]


def test_write_clips_and_rounds(tmp_path):
    write_png(tmp_path / "x.png", torch.tensor([-0.5, 0.499 / 255, 0.501 / 255, 1.7]).reshape(1, 1, 1, 4))
    assert np.asarray(Image.open(tmp_path / "x.png")).tolist() == [[0, 0, 1, 255]]


def test_write_refuses(tmp_path):
    with pytest.raises(ValueError, match="NaN"):
        write_png(tmp_path / "x.png", torch.full((1, 3, 4, 4), torch.nan))
    with pytest.raises(ValueError, match="shape"):
        write_png(tmp_path / "x.png", torch.rand(3, 4, 4))
    with pytest.raises(ValueError, match="bits"):
        write_png(tmp_path / "x.png", torch.rand(1, 3, 4, 4), bits=12)
    assert not list(tmp_path.iterdir())


def test_sheet(tmp_path):
    small, big = torch.rand(1, 1, 20, 30), torch.rand(1, 3, 200, 300)
    sheet([("a", small), ("degraded 20.31 dB\nsecond line", big), ("", torch.zeros(1, 3, 100, 50))],
          tmp_path / "s.png", height=100)
    image = np.asarray(Image.open(tmp_path / "s.png").convert("RGB")).astype(int)
    grey = (small[0, 0].numpy() * 255).round().astype(int).repeat(5, 0).repeat(5, 1)  # 20 -> 100 rows
    assert (image[12:112, 12:162] == grey[..., None]).all()
    assert (image[:12] == 255).all() and (image[:, :12] == 255).all() and (image[:, -12:] == 255).all()
    assert (image[12:112, 162:174] == 255).all()  # the gap
    shrunk = (big[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    expected = np.asarray(Image.fromarray(shrunk).resize((150, 100), Image.Resampling.LANCZOS))
    assert (image[12:112, 174:324] == expected).all()
    text = image[112:]
    assert (text[:, 12:100].min() < 60) and text[-3:].min() == 255  # a caption, and room below it
    inked = np.flatnonzero(text[:, 174:324].min(axis=(1, 2)) < 128)
    assert inked.max() - inked.min() > 24  # two lines
