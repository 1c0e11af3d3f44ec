"""python -m lipfw.tickets PATH [OTHER ...] [--csv FILE]"""
import argparse
import csv
import functools
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from lipfw.errors import InputError
from lipfw.files import write_text
from lipfw.listing import tickets_in
from lipfw.mask import Mask
from lipfw.measures import (
    bytes_on_disk,
    comparable,
    cumulative_sparsity,
    dead_channels,
    iou,
    layer_iou,
    layer_random_iou,
    layer_sparsity,
    parameters_left,
    random_iou,
)
from lipfw.prior.prior import rebuild
from lipfw.ticket import Ticket

_LARGEST = 1024     # up to this side a code is tried that the network takes: enough for 9 scales of an hourglass
_MEANING = {
    "run": "sparse: weights removed of all prunable ones; dead: channels of convolutions that no path of kept weights "
           "joins to both code and output; empty: layers that keep nothing; float32: bytes of the parameters left",
    "ticket": "sparse: removed of this layer; layers 1..l: removed of it and all before; dead: channels that no path "
              "of kept weights joins to both code and output",
    "overlap": "IoU: weights kept in both over weights kept in either; chance: that of random masks which keep as many "
               "of each layer",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise InputError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m lipfw.tickets", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="What tickets are like: a run by rounds, a single ticket by layers.\n\n"
                    "With OTHER also the overlap of the kept weights with each other run or ticket,\n"
                    "beside what it would be by chance.",
        epilog="examples: python -m lipfw.tickets runs/found\n"
               "          python -m lipfw.tickets tickets/round_02.safetensors --csv layers.csv\n\n"
               "Exit status: 0, or 1 if a ticket can't be read or compared or FILE not written.")
    parser.add_argument("path", metavar="PATH", type=Path, help="a ticket file, a tickets folder, or a run")
    parser.add_argument("other", metavar="OTHER", nargs="*", type=Path,
                        help="for a run: another run, compared by rounds, or a single ticket; for a ticket: a ticket")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write the numbers there, with all digits")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Show the tickets that `argv` names; returns the exit status. A mistake is told in one line on stderr."""
    try:
        args = _parser().parse_args(argv)
        return show(args.path, args.other, args.csv)
    except InputError as e:
        message = str(e)
    except OSError as e:
        message = f"{e.strerror or e}{f': {e.filename}' if e.filename else ''}"
    print(f"lipfw: {message}", file=sys.stderr)
    return 1


def show(path: Path, others: Sequence[Path] = (), file: Path | None = None) -> int:
    """Print the tables of a run or a ticket and of its overlap with others; write the numbers to `file`; returns 0.

    Raises InputError for what cannot be read or compared, before anything is printed.
    """
    found = _read(path)
    kind = "run" if found.is_run else "ticket"
    compared = [_compare(found, other) for other in map(_read, others)]
    rows, remarks = (_rounds if found.is_run else _layers)(found)
    # a pipe has no width of its own: rather long lines than wrapped cells
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160, highlight=False,
                      soft_wrap=False, markup=False)
    console.print(_origin(found))
    console.print(_table(rows, _COLUMNS[kind]))
    for line in remarks:
        console.print(line)
    console.print(_MEANING[kind], style="dim")
    for overlap in compared:
        console.print(f"\noverlap with {overlap.other}", style="bold", soft_wrap=True)
        console.print(_table([*(row | more for row, more in zip(rows, overlap.rows, strict=True)), *overlap.whole],
                             _COLUMNS[kind + " overlap"]))
        for line in overlap.remarks:
            console.print(line)
    if compared:
        console.print(_MEANING["overlap"], style="dim")
    if file is not None:
        wide = [row | more for o in compared for row, more in zip(rows, o.rows, strict=True)] if compared else rows
        write_text(file, _to_csv(wide))
        console.print(f"written: {file}", soft_wrap=True)
    sys.stdout.flush()
    return 0


# --- reading

@dataclass(frozen=True)
class _Found:
    """The tickets that a path names, with their files, by round."""

    path: Path
    files: list[Path]
    tickets: list[Ticket]

    @property
    def is_run(self) -> bool:
        return self.files != [self.path]


def _read(path: Path) -> _Found:
    path = Path(os.path.expanduser(path))
    files = tickets_in(path)
    found = _Found(path, files, [Ticket.load(f) for f in files])
    for file, ticket in zip(files, found.tickets, strict=True):
        if not ticket.mask:
            raise InputError(f"{file} is a ticket without layers; find it again")
    return found


@functools.cache
def _network(architecture: str) -> nn.Module:
    """Return the network that a ticket's JSON tells of, without weights; InputError if it can't be told."""
    try:
        told = json.loads(architecture)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise InputError(f"the ticket tells no architecture, but {architecture!r}")
    return rebuild(told)


def _structure(ticket: Ticket) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a ticket's network, without weights, and its dead channels; InputError if its network is not known."""
    network = _network(ticket.about.get("architecture", ""))
    try:
        return network, dead_channels(network, ticket.mask, (network.code_channels, _LARGEST, _LARGEST))
    except (AttributeError, ValueError, RuntimeError) as e:
        raise InputError(str(e).split("\n")[0]) from None


# --- measuring: rows of names and numbers, None where there is none

def _rounds(found: _Found) -> tuple[list[dict], list[str]]:
    """Return a row for each ticket of a run, and what else is to be said."""
    rows, unknown, cut, why = [], [], [], ""
    for round_, (file, ticket) in enumerate(zip(found.files, found.tickets, strict=True)):
        mask, left, dead, channels = ticket.mask, None, None, None
        try:
            network, dead_in = _structure(ticket)
            left = parameters_left(network, mask)
            dead, channels = (sum(map(count, dead_in.values())) for count in (_number, len))
            if dead == channels:
                cut.append(round_)
        except InputError as e:
            unknown, why = [*unknown, round_], why or str(e)
        size = bytes_on_disk(file)
        rows.append({
            "ticket": str(file), "round": round_, "sparsity": mask.sparsity, "kept": mask.count, "weights": mask.total,
            "params_left": left, "dead_channels": dead, "channels": channels,
            "empty_layers": sum(not m.any() for m in mask.values()), "mask_bytes": size.mask,
            "initial_bytes": size.initial, "float32_bytes": None if left is None else 4 * left})
    initial = rows[0]["initial_bytes"]
    return rows, [f"the initial weights of all rounds: {f'{initial:,} bytes' if initial else 'not beside them'}",
                  *([_unknown(_named(unknown), why)] if unknown else []), *([_cut(_named(cut))] if cut else [])]


def _layers(found: _Found) -> tuple[list[dict], list[str]]:
    """Return a row for each layer of a ticket, and what else is to be said."""
    mask, dead = found.tickets[0].mask, {}
    try:
        dead = _structure(found.tickets[0])[1]
        remarks = [_cut("this ticket")] if all(d.all() for d in dead.values()) else []
    except InputError as e:
        remarks = [_unknown("this ticket", str(e))]
    own, together = layer_sparsity(mask), cumulative_sparsity(mask)
    return [{"layer": i, "name": name, "shape": _shape(m), "kept": _number(m), "weights": m.numel(),
             "sparsity": own[name], "cumulative_sparsity": together[name],
             "dead_channels": _number(dead[name]) if dead else None, "channels": len(dead[name]) if dead else None}
            for i, (name, m) in enumerate(mask.items(), 1)], remarks


@dataclass(frozen=True)
class _Overlap:
    """The overlap with another run or ticket: what to add to each row, a row for all of them, remarks."""

    other: Path
    rows: list[dict]
    whole: list[dict]
    remarks: list[str]


def _compare(found: _Found, other: _Found) -> _Overlap:
    """Return the overlap of a run with a run (by rounds) or a ticket, or of a ticket with a ticket (by layers)."""
    if other.is_run and not found.is_run:
        raise InputError(f"{found.path} is a single ticket and {other.path} is not; name a ticket of it, such as "
                         f"{other.files[0]}, or give the run first")
    try:
        return (_by_rounds if found.is_run else _by_layers)(found, other)
    except ValueError as e:
        raise InputError(f"{found.path} and {other.path} can't be compared, they are tickets of two networks: "
                         f"{e}") from None


def _by_layers(found: _Found, other: _Found) -> _Overlap:
    a, b = found.tickets[0].mask, other.tickets[0].mask
    names = comparable(a, b)
    mine, theirs = (Mask({name: m[name] for name in names}) for m in (a, b))
    whole = {"layer": "", "name": "all compared", "sparsity": mine.sparsity} | _overlap(mine, theirs, other.path)
    return _Overlap(other.path, _overlap_of_layers(a, b, other.path), [whole], _left_out(a, b))


def _by_rounds(found: _Found, other: _Found) -> _Overlap:
    rounds = len(found.tickets)
    theirs = [t.mask for t in other.tickets] if other.is_run else [other.tickets[0].mask] * rounds
    remarks = _left_out(found.tickets[0].mask, theirs[0])
    if len(theirs) != rounds:
        remarks.append(f"{other.path} has {len(theirs)} rounds, {found.path} has {rounds}")
    theirs = [*theirs, *[None] * rounds][:rounds]
    rows = [_overlap(t.mask, m, other.path) for t, m in zip(found.tickets, theirs, strict=True)]
    return _Overlap(other.path, rows, [], remarks)


def _overlap(a: Mask, b: Mask | None, other: Path) -> dict:
    there = b is not None
    return {"other": str(other), "other_sparsity": b.sparsity if there else None,
            "iou": iou(a, b) if there else None, "random_iou": random_iou(a, b) if there else None}


def _overlap_of_layers(a: Mask, b: Mask, other: Path) -> list[dict]:
    theirs, both, chance = layer_sparsity(b), layer_iou(a, b), layer_random_iou(a, b)
    return [{"other": str(other), "other_sparsity": theirs.get(name), "iou": both.get(name),
             "random_iou": chance.get(name)} for name in a]


# --- what is said

def _left_out(a: Mask, b: Mask) -> list[str]:
    names = comparable(a, b)
    differ = [name for name in {**a, **b} if name not in set(names)]
    if not differ:
        return []
    first = f"{differ[0]} is {_shape(a.get(differ[0]))} here and {_shape(b.get(differ[0]))} there"
    weights = sum(a[n].numel() for n in names)
    return [f"compared: {len(names)} layers with {weights:,} of the {a.total:,} weights; left out: {len(differ)} that "
            f"differ ({first})"]


def _unknown(which: str, reason: str) -> str:
    return f"{which}: the network is not known, nor its dead channels and other parameters: {reason}"


def _cut(which: str) -> str:
    return f"{which}: no path of kept weights leads from the code to the output"


def _named(rounds: Sequence[int]) -> str:
    return f"round{'s' * (len(rounds) > 1)} {', '.join(map(str, rounds))}"


def _origin(found: _Found) -> Table:
    """Return where the tickets come from, a line each; what they don't tell is left out."""
    about = found.tickets[0].about
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for key in ("run", "task", "image", "pruner", "seed", *([] if found.is_run else ["round"])):
        if about.get(key):
            parts = about[key].split(".")       # lipfw.pruner.imp.IMP -> imp
            table.add_row(key, parts[-2] if key in ("task", "pruner") and len(parts) > 1 else about[key])
    if not found.is_run:
        mask = found.tickets[0].mask
        table.add_row("kept", f"{mask.count:,} of {mask.total:,} weights: {mask.sparsity:.2%} sparse")
    return table


# --- tables: (key, heading, how a number is written)

def _percent(value: float) -> str:
    return f"{value:.2%}"


def _ratio(value: float) -> str:
    return f"{value:.4f}"


def _grouped(value: int) -> str:
    return f"{value:,}"


def _short(name: str) -> str:
    return name.removesuffix(".weight")


_OVERLAP = [("sparsity", "sparse", _percent), ("other_sparsity", "other", _percent), ("iou", "IoU", _ratio),
            ("random_iou", "chance", _ratio)]
_COLUMNS = {
    "run": [("round", "round", str), ("sparsity", "sparse", _percent), ("params_left", "params left", _grouped),
            ("dead_channels", "dead", _grouped), ("empty_layers", "empty", str),
            ("mask_bytes", "file, bytes", _grouped), ("float32_bytes", "float32, bytes", _grouped)],
    "ticket": [("layer", "", str), ("name", "layer", _short), ("shape", "shape", str), ("kept", "kept", _grouped),
               ("sparsity", "sparse", _percent), ("cumulative_sparsity", "layers 1..l", _percent),
               ("dead_channels", "dead", _grouped)],
    "run overlap": [("round", "round", str), *_OVERLAP],
    "ticket overlap": [("layer", "", str), ("name", "layer", _short), *_OVERLAP],
}


def _table(rows: Sequence[dict], columns: Sequence[tuple]) -> Table:
    """Return a table of at most 80 columns for the networks of this package."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for key, heading, _ in columns:
        text = key in ("name", "shape")
        table.add_column(heading, justify="left" if text else "right", overflow="fold", no_wrap=not text)
    for row in rows:
        cells = [(row.get(key), written) for key, _, written in columns]
        table.add_row(*("-" if value is None else written(value) for value, written in cells))
    return table


def _to_csv(rows: Sequence[dict]) -> str:
    """Return a header and a line for each row, all digits, empty where there is no number."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _shape(m: Tensor | None) -> str:
    return "missing" if m is None else "x".join(map(str, m.shape))


def _number(m: Tensor) -> int:
    return int(m.sum())


if __name__ == "__main__":
    sys.exit(main())
