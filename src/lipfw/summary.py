"""What a run shows at its end: the table of its rounds, its last lines, and the panels of compare.png."""
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from torch import Tensor

from lipfw.fit.evaluation import psnr
from lipfw.problem import Problem
from lipfw.report.origin import origins, spans
from lipfw.words import spoken


def panels(problem: Problem, view: Tensor, restored: Tensor, view_psnr: float) -> list:
    """Return compare.png's panels: clean, degraded, restored, error x4; what is not known is left out."""
    x = problem.image.cpu() if problem.image is not None else None
    if x is None:
        return [("degraded", view), ("restored", restored), ("change x4", ((restored - view).abs() * 4).clamp(0, 1))]
    return [("clean", x), (f"degraded\n{view_psnr:.2f} dB", view),
            (f"restored\n{float(psnr(problem, restored)):.2f} dB", restored),
            ("error x4", ((restored - x).abs() * 4).clamp(0, 1))]


def numbers(columns: Sequence[str], caption: str) -> Table:
    """Return an empty table of these columns, for numbers."""
    table = Table(*columns, box=None, pad_edge=False, caption=caption, caption_justify="left")
    for column in table.columns:
        column.justify = "right"
    return table


def rounds_table(result: dict) -> Table:
    """Return the rounds as a table; a star marks the ticket that was chosen without the clean picture."""
    known = result["rounds"][0]["psnr_final"] is not None
    generated = known and result["config"]["prior"]["_target_"].startswith("lipfw.prior.pggan.")
    columns = ["round", "sparsity", "params", "loss"] + (["peak", "picked", "final", "SSIM"] if known else [])
    columns += ["MSE"] if generated else []
    table = numbers([*columns, "step", "time"], (
        "PSNR in dB: best step (peak, an oracle), picked without the clean picture, last; SSIM and step of the picked"
        + "; MSE: its mean squared error in [-1, 1]" * generated
        if known else "step: the one picked, of those done where the fit ended early"))
    for r in result["rounds"]:
        star = "*" if r["round"] == result["best_round"] else " "
        cells = [f"{star}{r['round']}", f"{r['sparsity']:.2%}", f"{r['params_left']:,}", f"{r['loss']:.3e}"]
        if known:
            cells += [f"{r[f'psnr_{k}']:.2f}" for k in ("peak", "picked", "final")]
            cells += [f"{r['ssim_picked']:.3f}" if r["ssim_picked"] is not None else "-"]
        cells += [f"{r['mse_picked']:.4f}"] if generated else []
        stopped = r["step_last"] < result["config"]["fit"].get("steps", 1)
        table.add_row(*cells, f"{r['step_picked']}" + f" of {r['step_last']}" * stopped, spoken(r["seconds"]))
    return table


def closing(folder: Path, result: dict) -> str:
    """Return the last lines of a run: what was gained, from which tickets if it replayed any, and where it lies."""
    best = result["rounds"][result["best_round"]]
    lines = [f"* round {best['round']}, chosen without the clean picture: {best['sparsity']:.1%} sparse"]
    if result["degraded"]["psnr"] is not None:
        lines[0] += f", {result['degraded']['psnr']:.2f} -> {best['psnr_picked']:.2f} dB"
    oracle = result.get("oracle_round")
    if oracle not in (None, best["round"]):
        by_picture = result["rounds"][oracle]
        lines.append(f"best round by the clean picture: {oracle} ({by_picture['sparsity']:.1%} sparse, "
                     f"{by_picture['psnr_picked']:.2f} dB)")
    timed = [r for r in result["rounds"] if r.get("stopped_by") == "time"]
    if timed:
        lines.append(f"time ended {len(timed)} of {len(result['rounds'])} rounds, after "
                     f"{min(r['step_last'] for r in timed):,} steps or more (fit.minutes="
                     f"{result['config']['fit']['minutes']:g})")
    lines += tickets_used(result)
    return "\n".join([*lines, f"{folder}/: restored.png, compare.png, rounds.jsonl, result.json"])


def tickets_used(result: dict) -> list[str]:
    """Return a line for each run whose tickets a result replayed."""
    init = result["config"]["pruner"].get("init")
    lines = []
    for o in origins(result):
        where, _, pruner = o.label.rpartition("-")
        which = f"tickets of rounds {spans(o.rounds)}" if len(o.rounds) > 1 else f"ticket of round {o.rounds[0]}"
        lines.append(f"{which}, found on {where} by {pruner}, seed {o.seed}, in {o.run}"
                     + (f"; pruner.init={init}" if init is not None else ""))
    return lines
