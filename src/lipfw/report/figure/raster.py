"""The pictures of a run folder as arrays: restored, and, out of compare.png, clean and degraded."""
import re
from pathlib import Path

import numpy as np
from PIL import Image

from lipfw.folder import short
from lipfw.report.study import Point

GAP, HEIGHT = 12, 256       # of compare.png, as lipfw.image.write.sheet lays it out


def restored(point: Point) -> Path | None:
    """Return the file of a round's picture, of several pictures that of the first; None if it has none."""
    folder, stem = point.folder / "restored", f"round_{point.round:02d}"
    several = [folder / f"{stem}-{short(name)}.png" for name in point.record.get("images", ())]
    return next((f for f in (folder / f"{stem}.png", *several) if f.is_file()), None)


def score(point: Point) -> float | None:
    """Return the PSNR in dB of what `restored` names: the picture of the step that was picked."""
    images = point.record.get("images")
    record = next(iter(images.values())) if images else point.record
    return record.get("psnr_picked")


def before(point: Point) -> float | None:
    """Return the PSNR in dB of the degraded picture; of several pictures only their mean is known, and so None."""
    return None if point.record.get("images") else point.run.degraded.get("psnr")


def read(path: Path) -> np.ndarray:
    """Return a picture (H, W, 3) of 8 bits; transparency is dropped."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def given(point: Point) -> dict[str, np.ndarray]:
    """Return the run's `clean` and `degraded` pictures (H, W, 3) of 8 bits, as far as its folder has them.

    They come from compare.png: exact for pictures up to 256 pixels high, shrunk to that for higher ones.
    """
    file = restored(point)
    if file is None:
        return {}
    suffix = file.stem.removeprefix(f"round_{point.round:02d}")
    compare = point.folder / f"compare{suffix}.png"
    if not compare.is_file():
        return {}
    with Image.open(file) as image:
        width, height = image.size
    factor = max(1, HEIGHT // height)
    w, h = (width * factor, height * factor) if height <= HEIGHT else (max(1, round(width * HEIGHT / height)), HEIGHT)
    known = point.record.get("psnr_picked") is not None
    kinds = ("clean", "degraded", "restored", "error") if known else ("degraded", "restored", "change")
    sheet = read(compare)
    if sheet.shape[1] != len(kinds) * w + (len(kinds) + 1) * GAP:   # captions wider than the pictures
        return {}
    cut = {k: sheet[GAP:GAP + h:factor, GAP + i * (w + GAP):GAP + i * (w + GAP) + w:factor]
           for i, k in enumerate(kinds)}
    return {k: cut[k] for k in ("clean", "degraded") if k in cut}


def on_the_way(point: Point) -> dict[int, Path]:
    """Return {step: file} of the pictures that a round has left on its way, by step; of several pictures the first's.
    """
    file = restored(point)
    if file is None:
        return {}
    stem = f"round_{point.round:02d}"
    pattern = re.compile(rf"{stem}_step_(\d+){re.escape(file.stem.removeprefix(stem))}\.png")
    found = {int(m[1]): f for f in file.parent.iterdir() if (m := pattern.fullmatch(f.name))}
    return dict(sorted(found.items()))


def luma(picture: np.ndarray) -> np.ndarray:
    """Return the luma (H, W) in [0, 1] of a picture of 8 bits (ITU-R BT.601)."""
    return picture.astype(float) @ np.array([0.299, 0.587, 0.114]) / 255
