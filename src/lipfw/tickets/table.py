"""Rows -> tables of 80 columns for the terminal, and CSV."""
import csv
import io
from collections.abc import Sequence

from rich.table import Table

from lipfw.tickets.rows import Found

MEANING = {
    "run": "sparse: weights removed of all prunable ones; dead: channels of convolutions that no path of kept weights "
           "joins to both code and output; empty: layers that keep nothing; float32: bytes of the parameters left",
    "ticket": "sparse: removed of this layer; layers 1..l: removed of it and all before; dead: channels that no path "
              "of kept weights joins to both code and output",
    "overlap": "IoU: weights kept in both over weights kept in either; chance: that of random masks which keep as many "
               "of each layer",
}
_OVERLAP = [("sparsity", "sparse", ".2%"), ("other_sparsity", "other", ".2%"), ("iou", "IoU", ".4f"),
            ("random_iou", "chance", ".4f")]
_COLUMNS = {     # (key, heading, how a number is written)
    "run": [("round", "round", ""), ("sparsity", "sparse", ".2%"), ("params_left", "params left", ","),
            ("dead_channels", "dead", ","), ("empty_layers", "empty", ""), ("mask_bytes", "file, bytes", ","),
            ("float32_bytes", "float32, bytes", ",")],
    "ticket": [("layer", "", ""), ("name", "layer", ""), ("shape", "shape", ""), ("kept", "kept", ","),
               ("sparsity", "sparse", ".2%"), ("cumulative_sparsity", "layers 1..l", ".2%"),
               ("dead_channels", "dead", ",")],
    "run overlap": [("round", "round", ""), *_OVERLAP],
    "ticket overlap": [("layer", "", ""), ("name", "layer", ""), *_OVERLAP],
}


def origin(found: Found) -> Table:
    """Return where the tickets come from, a line each; what they don't tell is left out."""
    about = found.tickets[0].about
    lines = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    lines.add_column(style="dim")
    lines.add_column(overflow="fold")
    for key in ("run", "task", "image", "pruner", "seed", *([] if found.is_run else ["round"])):
        if about.get(key):
            parts = about[key].split(".")       # lipfw.pruner.imp.IMP -> imp
            lines.add_row(key, parts[-2] if key in ("task", "pruner") and len(parts) > 1 else about[key])
    if not found.is_run:
        mask = found.tickets[0].mask
        lines.add_row("kept", f"{mask.count:,} of {mask.total:,} weights: {mask.sparsity:.2%} sparse")
    return lines


def table(rows: Sequence[dict], kind: str) -> Table:
    """Return a table of at most 80 columns for the networks of this package; `-` where there is no number."""
    out = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for key, heading, _ in _COLUMNS[kind]:
        text = key in ("name", "shape")
        out.add_column(heading, justify="left" if text else "right", overflow="fold", no_wrap=not text)
    for row in rows:
        out.add_row(*(_cell(row.get(key), spec) for key, _, spec in _COLUMNS[kind]))
    return out


def to_csv(rows: Sequence[dict]) -> str:
    """Return a header and a line for each row, all digits, empty where there is no number."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _cell(value, spec: str) -> str:
    if isinstance(value, str):
        return value.removesuffix(".weight")
    return "-" if value is None else format(value, spec)
