"""What the tables of groups and comparisons say, in the terminal and in Markdown alike."""
from collections.abc import Callable, Sequence

from lipfw.report.compare import Comparison, Overview, best
from lipfw.report.origin import spans
from lipfw.report.read import Runs
from lipfw.report.stats import Group, Stat, Twin

COMPARED = {"psnr_picked": "PSNR picked, dB", "mse_picked": "MSE picked, lower is better",
            "psnr_peak": "PSNR peak, dB", "swd": "distance, lower is better", "accuracy": "accuracy, %"}
LOW = ("mse_picked", "swd")         # the best is the lowest
HEADS = {"psnr_peak": ("peak", "PSNR peak"), "psnr_picked": ("picked", "PSNR picked"),
         "psnr_final": ("final", "PSNR final"), "ssim_picked": ("SSIM", "SSIM picked"), "mse_picked": ("MSE", "MSE"),
         "swd": ("distance", "distance"), "accuracy": ("accuracy", "accuracy"),
         "accuracy_best": ("best", "accuracy best"), "train_accuracy": ("train", "accuracy in training"),
         "loss": ("loss", "loss")}         # in the terminal, and elsewhere
RESTORED = ("psnr_peak", "psnr_picked", "psnr_final", "ssim_picked")       # what overviews show
# metric that a group of trainings has -> the metrics of its table, and by what its round is chosen
TRAINED = {"swd": (["swd"], "by the distance"),
           "accuracy": (["accuracy", "accuracy_best", "train_accuracy", "loss"], "by the training loss")}
SCALED = ("mse_picked", "loss")    # in the terminal


def meaning(groups: Sequence[Group], pm: str) -> str:
    """Return the footnote of the tables: what their numbers are."""
    parts = []
    if any("psnr_picked" in metrics(g) for g in groups):
        parts = [f"PSNR in dB, mean {pm} standard deviation over seeds (n): of the best step (peak, an oracle), of the "
                 "one picked without the clean picture, and of the last", "SSIM of the picked"]
    if any("mse_picked" in metrics(g) for g in groups):
        parts += ["MSE of the picked: per value, in the range [-1, 1]"]
    if any("swd" in metrics(g) for g in groups):
        parts += ["distance: the sliced Wasserstein distance of made and real pictures in 1/1000, mean "
                  f"{pm} standard deviation over seeds (n)"]
    if any("accuracy" in metrics(g) for g in groups):
        parts += [f"accuracy: percentage of test pictures told right at the last step, mean {pm} standard deviation "
                  "over seeds (n); best: at the best step, an oracle; train: of the last epoch's training pictures"]
    if any(g.over_pictures for g in groups):
        parts += [f"where a generator's n is 1: {pm} standard deviation over the pictures of that seed"]
    return "; ".join([*parts, "(k): only k runs have a value", "*: the round chosen most often"])


def metrics(group: Group) -> list[str]:
    """Return the metrics of a group's table, in its order."""
    for metric, (shown, _) in TRAINED.items():
        if group.has(metric):
            return shown.copy()
    return ["psnr_peak", "psnr_picked", "psnr_final", *["mse_picked"] * (group.generator and group.has("mse_picked")),
            "ssim_picked", "loss"]


def choice(group: Group) -> str:
    """Return the line that tells how often which round was chosen, and by what."""
    how = next((how for metric, (_, how) in TRAINED.items() if group.has(metric)), "without the clean picture")
    chosen = sorted((r for r in group.rows if r.chosen), key=lambda r: -r.chosen)
    n = len(group.runs)
    if n == 1:
        return f"* chosen {how}: round {chosen[0].round}"
    often = ", ".join(f"round {r.round} ({r.chosen} of {n})" for r in chosen)
    return f"* chosen {how}: {often}"


def choice_lost(group: Group, shown: str) -> list[str]:
    """Return the line that tells what the choice without the clean picture cost, `shown` in dB; none if unknown."""
    if not group.lost.n or len(group.rows) == 1:
        return []
    return [f"PSNR picked that this choice lost to the best by the clean picture: {shown} dB"]


def tickets_used(groups: Sequence[Group]) -> list[list[str]]:
    """Return a table: heads, and a row for each group that replayed tickets whose origin is known; [] without any."""
    rows = []
    hashes: dict[str, set[str]] = {}
    for o in (o for g in groups for r in g.runs for o in r.found):
        hashes.setdefault(o.label, set()).add(o.options)
    for g in groups:
        if found := [o for r in g.runs for o in r.found]:
            by = dict.fromkeys(o.label + (f" ({o.options})" if len(hashes[o.label]) > 1 else "") for o in found)
            rounds = {r for o in found for r in o.rounds}
            sparsities = [s for o in found for s in o.sparsities]
            ends = dict.fromkeys(f"{s:.2%}" for s in (min(sparsities), max(sparsities)))
            rows.append([g.label, ", ".join(by), spans(o.seed for o in found), spans(rounds), "..".join(ends),
                         str(g.runs[0].options.get("pruner.init", "-"))])
    return [["group", "tickets found by", "seeds", "rounds", "sparsity", "init"], *rows] if rows else []


def remarks(runs: Runs, twins: Sequence[Twin]) -> list[str]:
    """Return a line for each run that could not go on, is not finished, or is left out since it is there already."""
    lines = [f"ended: {r.folder}: {r.ended}" for r in runs.finished if r.ended]
    for u in runs.unfinished:
        done = f"{u.done} of {u.total} rounds" if u.total is not None else f"{u.done} rounds"
        lines.append(f"not finished, left out: {u.folder} ({done} done)")
    for t in twins:
        why = "" if t.same else "; their numbers differ: another device, another version or a changed picture"
        lines.append(f"counted once: {t.run.folder} has the options and the seed of {t.kept.folder}{why}")
    return lines


# --- comparisons

def marked_overview(o: Overview, cell: Callable[[str, Stat, int], str], mark: str) -> list[list[str]]:
    """Return the cells of each metric's column, the best ones put into `mark`."""
    columns = []
    for metric in RESTORED:
        most = best(r.stats[metric] for r in o.rows)
        texts = [cell(metric, r.stats[metric], r.n) for r in o.rows]
        columns.append([mark.format(t) if r.stats[metric].mean is not None and r.stats[metric].mean == most else t
                        for t, r in zip(texts, o.rows, strict=True)])
    return columns


def compared(c: Comparison) -> list[tuple[str, str]]:
    """Return (metric, name) of what has a value: nothing, where the clean picture is not known."""
    return [(m, name) for m, name in COMPARED.items() if any(s.n for column in c.stats(m) for s in column)
            and (m != "mse_picked" or c.groups[0].generator)]


def marked(c: Comparison, metric: str, cell: Callable[[Stat, int], str], mark: str) -> list[list[str]]:
    """Return the cells of each column, the best ones put into `mark`."""
    columns = []
    for column in c.stats(metric):
        most = best(column, lowest=metric in LOW)
        texts = [cell(s, len(g.runs)) for s, g in zip(column, c.groups, strict=True)]
        columns.append([mark.format(t) if s.mean is not None and s.mean == most else t
                        for t, s in zip(texts, column, strict=True)])
    return columns
