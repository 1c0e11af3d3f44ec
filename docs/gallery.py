"""Make docs/gallery.png: four pictures that scikit-image ships, degraded, restored and clean, with their PSNR.

    python docs/gallery.py [OUT.png]

takes one core. What is degraded here is restored by `lipfw.restore` without a look at the clean picture; the PSNR that
stands below is of the run that has made the file.
"""
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import lipfw
from lipfw.files import write_atomic
from lipfw.image import skimage
from lipfw.image.picture import Picture
from lipfw.image.write import sheet
from lipfw.task.cs import CompressedSensing
from lipfw.task.denoise import Denoise
from lipfw.task.superres import SuperRes

SIZE, NET = 96, {"channels": 32}
TEXT = "Lottery image priors need no training data: the network is its own prior. "


def denoised(clean: Picture) -> tuple[Tensor, lipfw.Restored]:
    """Return a picture (1, C, H, W) with noise of 25 grey levels, and what is restored of it."""
    noisy = Denoise(25)(clean).measurement
    return noisy, lipfw.restore(noisy, **NET)


def without_text(clean: Picture) -> tuple[Tensor, lipfw.Restored]:
    """Return a picture (1, C, H, W) with lines of white text on it, and what is restored of it."""
    page = Image.new("L", (SIZE, SIZE), 255)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(9)
    for i, top in enumerate(range(2, SIZE, 16)):
        draw.text((0, top), (TEXT * 2)[13 * i:], fill=0, font=font)
    known = page.point(lambda v: 255 * (v == 255))
    written = torch.where(torch.frombuffer(bytearray(known.tobytes()), dtype=torch.uint8).view(SIZE, SIZE) == 255,
                          clean.pixels, 1.0)
    return written, lipfw.restore(written, "inpaint", mask=known, **NET)


def enlarged(clean: Picture) -> tuple[Tensor, lipfw.Restored]:
    """Return a picture (1, C, H, W) enlarged from one 4 times smaller by interpolation, and by the prior."""
    problem = SuperRes(4)(clean)
    return (problem.operator.view(problem.measurement),
            lipfw.restore(problem.measurement, "superres", factor=4, **NET))


def sensed(clean: Picture) -> tuple[Tensor, lipfw.Restored]:
    """Return a view (1, C, H, W) of random products, a fifth as many as values, and what is restored of them."""
    n = clean.pixels.numel()
    measure = CompressedSensing(n // 5, corrupted=0, noise=0)
    problem = measure(clean)
    view = problem.operator.view(problem.measurement)
    # the measurement is no picture: of the one that is given its size alone is used
    return view, lipfw.restore(view, lambda picture: replace(problem, image=None), smoothing=0.0, jitter=0.03,
                               steps=1500, **NET)


ROWS = [("astronaut", "noise, 25 grey levels", denoised), ("coffee", "text", without_text),
        ("chelsea", "4 x smaller, bicubic", enlarged), ("camera", "a fifth of the numbers", sensed)]


def psnr(a: Tensor, b: Tensor) -> float:
    """Return the PSNR in dB of two pictures in [0, 1]."""
    return float(-10 * (a - b).square().mean().log10())


def main(path: Path) -> None:
    """Restore all rows, one after another, and write the sheet to a PNG."""
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, what, restore) in enumerate(ROWS):
            (clean,) = skimage.load(name, size=SIZE)
            started = time.monotonic()
            degraded, restored = restore(clean)
            numbers = [psnr(x, clean.pixels) for x in (degraded, restored.picture)]
            print(f"{name}: {what}: {numbers[0]:.2f} -> {numbers[1]:.2f} dB, step {restored.step} of {restored.steps}, "
                  f"{time.monotonic() - started:.0f} s", flush=True)
            sheet([(f"{what}\n{numbers[0]:.2f} dB", degraded), (f"restored\n{numbers[1]:.2f} dB", restored.picture),
                   ("clean", clean.pixels)], row := Path(folder) / f"{i}.png", 2 * SIZE)
            rows.append(Image.open(row).convert("RGB"))
        page = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), "white")
        top = 0
        for row in rows:
            page.paste(row, (0, top))
            top += row.height
    write_atomic(path, lambda p: page.save(p, "PNG", optimize=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".png"))
