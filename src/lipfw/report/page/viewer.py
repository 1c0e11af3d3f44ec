"""Pictures of runs -> HTML in which what was given, what was restored and the clean picture lie over each other."""
import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from lipfw.report.figure.points import first
from lipfw.report.figure.raster import before, given, read, restored, score
from lipfw.report.figure.words import percent
from lipfw.report.page.markup import text
from lipfw.report.read import natural
from lipfw.report.study import Point, Study

_SIDE = 320         # pixels of the longer side, at most
_SMALL = 160        # up to this side pixels stay what they are: PNG, enlarged without smoothing
_ROUNDS = 9         # of one run


def viewers(study: Study, anchor: str, most: int, level: int) -> str:
    """Return up to `most` viewers, one a picture, of the first series that has its pictures; '' without any.

    Their headings are of `level`, ids begin with `anchor`.
    """
    found = []
    for name in sorted({p.picture for s in study.series.values() for p in s.points}, key=natural):
        for s in study.series.values():
            mine = [p for p in s.points if p.picture == name and not s.level]
            if run := _rounds(mine):
                found.append(_viewer(run, f"{name}, {s.label}", f"{anchor}-view-{len(found)}", level))
                break
        if len(found) == most:
            break
    return f'<div class="viewers">\n{"".join(found)}</div>\n' if found else ""


def _rounds(points: Sequence[Point]) -> list[Point]:
    """Return the rounds of the lowest seed's run whose pictures are there, some of many; [] without its compare.png."""
    start = first(points)
    if start is None or "degraded" not in given(start):
        return []
    run = sorted((p for p in points if p.folder == start.folder and restored(p)), key=lambda p: p.round)
    return [run[i] for i in sorted({*np.linspace(0, len(run) - 1, min(_ROUNDS, len(run))).round().astype(int)})]


def _viewer(run: Sequence[Point], title: str, name: str, level: int) -> str:
    pictures, psnr = given(run[0]), before(run[0])
    said = {"degraded": "degraded" + (f", {psnr:.2f} dB" if psnr is not None else ""), "clean": "clean"}
    figures = [_figure(pictures[k], said[k], title, f'class="given" data-kind="{k}"') for k in ("degraded", "clean")
               if k in pictures]
    best = next((i for i, p in enumerate(run) if p.round == p.run.best_round), len(run) - 1)
    shown = []
    for i, p in enumerate(run):
        words = f"{percent(p.sparsity)} removed" + (f", {score(p):.2f} dB" if score(p) is not None else "")
        shown.append(_figure(read(restored(p)), words, title, f'class="restored"{" hidden" * (i != best)}'))
    figures[1:1] = shown
    controls = [f'<div class="ends"><output for="{name}-line">{text(said["degraded"])}</output>'
                f'<output for="{name}-round"></output></div>',
                f'<label>Move the line<input class="line" id="{name}-line" type="range" min="0" max="100" value="50">'
                "</label>"]
    if len(run) > 1:
        controls.append(f'<label>Weights removed<input class="round" id="{name}-round" type="range" min="0" '
                        f'max="{len(run) - 1}" value="{best}"></label>')
    if "clean" in pictures:
        radios = "".join(f'<label><input type="radio" name="{name}-kind" value="{k}"'
                         f'{" checked" * (k == "degraded")}>{k}</label>' for k in ("degraded", "clean"))
        controls.append(f'<fieldset class="choice"><legend>On the left</legend>{radios}</fieldset>')
    return (f'<div class="viewer"><h{level}>{text(title)}</h{level}>\n<div class="stage">{"".join(figures)}</div>\n'
            f'<div class="controls">{"".join(controls)}</div></div>\n')


def _figure(picture: np.ndarray, words: str, title: str, attributes: str) -> str:
    data, small = _embedded(picture)
    h, w = picture.shape[:2]
    return (f'<figure {attributes}><img src="{data}" alt="{text(title)}: {text(words)}" width="{w}" height="{h}"'
            f'{" class=small" * small}><figcaption>{text(words)}</figcaption></figure>')


def _embedded(picture: np.ndarray) -> tuple[str, bool]:
    """Return a picture (H, W, 3) of 8 bits as a data URL, and whether it is one of few pixels."""
    image, out = Image.fromarray(picture), io.BytesIO()
    small = max(image.size) <= _SMALL
    if small:
        image.save(out, "PNG", optimize=True)
    else:
        image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        image.save(out, "JPEG", quality=88)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}", small
