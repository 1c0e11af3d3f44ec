"""Figures -> SVG inside the page: in its colours, light and dark, with ids of their own and small pictures."""
import base64
import io
import re

from PIL import Image

from lipfw.report.figure import Drawn
from lipfw.report.page.markup import text

# colours of lipfw.report.figure.style -> those of the page
_COLOURS = {"#1b1d20": "--ink", "#6a6f76": "--faint", "#dfe2e6": "--grid", "#fefefe": "--paper", "#0072b2": "--s0",
            "#d55e00": "--s1", "#009e73": "--s2", "#cc79a7": "--s3", "#e69f00": "--s4", "#56b4e9": "--s5"}
_LARGE = 24_000     # characters of an embedded PNG above which it becomes a JPEG
_QUALITY = 86


def chart(drawn: Drawn, name: str) -> str:
    """Return a figure for wide pages and one for phones; a grid of pictures scrolls in its own box instead."""
    wide = inline(drawn.svg.read_text(encoding="utf-8"), f"{name}w-", drawn.alt)
    if drawn.narrow is None:
        width = float(re.search(r'viewBox="0 0 ([\d.]+)', wide)[1])
        return ('<figure class="chart"><div class="scroll" tabindex="0" role="region" '
                f'aria-label="{text(drawn.title)}" style="--least:{min(width, 680):.0f}px;--most:{1.5 * width:.0f}px">'
                f'{wide}</div></figure>\n')
    narrow = inline(drawn.narrow, f"{name}n-", drawn.alt)
    return f'<figure class="chart"><div class="wide">{wide}</div><div class="narrow">{narrow}</div></figure>\n'


def inline(svg: str, prefix: str, alt: str) -> str:
    """Return an SVG file's element for use within a page: `prefix` goes before its ids, `alt` says what it is."""
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<style type="text/css">.*?</style>', "", svg, flags=re.DOTALL)     # it would rule the whole page
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL)
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}", svg)
    svg = re.sub("|".join(_COLOURS), lambda m: f"var({_COLOURS[m[0]]})", svg)
    svg = re.sub(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)", _smaller, svg)
    box = re.search(r'viewBox="[^"]*"', svg)[0]
    head = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box} role="img" aria-label="{text(alt)}">'
    return re.sub(r"<svg[^>]*>", lambda m: head, svg, count=1).strip()


def _smaller(match: re.Match) -> str:
    """Return an embedded PNG as it is, or as a JPEG if it is large; without the line breaks within it."""
    code = re.sub(r"\s", "", match[1])
    if len(code) > _LARGE:
        with Image.open(io.BytesIO(base64.b64decode(code))) as image:
            out = io.BytesIO()
            flat = Image.new("RGB", image.size, "white")
            flat.paste(image, mask=image.getchannel("A") if image.mode == "RGBA" else None)
            flat.save(out, "JPEG", quality=_QUALITY)
        if 4 * len(out.getvalue()) // 3 < len(code):
            return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
    return "data:image/png;base64," + code
