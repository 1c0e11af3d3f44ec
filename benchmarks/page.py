"""Results as a page of Markdown: the goals first, then a table a benchmark."""
from collections.abc import Mapping
from importlib import import_module

from benchmarks.goals import GOALS


def page(results: Mapping[str, dict]) -> str:
    """Return the page of results: {benchmark: {"about": ..., "rows": [...], "error": ...}}."""
    lines = ["# Benchmarks", "", "Ratios are medians over turns in which the contenders alternate, with quartiles "
             "(extremes, of fewer than 5 turns). Times are medians and mean little on a shared machine.", ""]
    if any(r["about"]["quick"] for r in results.values()):
        lines += ["**A quick look with tiny networks: the numbers mean nothing.**", ""]
    lines += _goals(results)
    for name, result in results.items():
        about = ", ".join(f"{k} {v}" for k, v in result["about"].items() if k != "quick")
        lines += ["", f"## {name}", "", import_module(f"benchmarks.{name}").__doc__.strip(), "", f"*{about}*", ""]
        lines += _table(result["rows"]) if result["rows"] else []
        lines += ["", f"**Failed:** {result['error']}"] if result["error"] else []
    return "\n".join(lines) + "\n"


def _goals(results: Mapping[str, dict]) -> list[str]:
    """Return the table of goals, each with what was measured."""
    answers = {row["goal"]: row for r in results.values() for row in r["rows"] if row["goal"]}
    lines = ["| | goal | stretch | measured | reached |", "|---|---|---|---|---|"]
    for g in GOALS:
        row = answers.get(g.key)
        if row is None:
            measured, reached = "not measured here", ""
        elif row["ratio"] is None:
            measured, reached = row["note"], ""
        else:
            measured, reached = _spread(row["ratio"]), g.reached(row["ratio"]["median"])
        lines.append(f"| {g.text} | {g.goal:g} | {g.stretch:g} | {measured} | {reached} |")
    return lines


def _table(rows: list[dict]) -> list[str]:
    """Return a table of rows, with the columns that any of them has."""
    numbers = list(dict.fromkeys(k for row in rows for k in row["numbers"]))
    compared = any(row["against"] for row in rows)
    head = ["what", *(["against", "ratio", "pairs"] if compared else []), *numbers, "note"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        r = row["ratio"]
        cells = [row["what"], *([row["against"], _spread(r) if r else "", str(r["pairs"]) if r else ""] * compared),
                 *(f"{row['numbers'][k]:.4g}" if k in row["numbers"] else "" for k in numbers), row["note"]]
        lines.append(f"| {' | '.join(c.replace('|', '/') for c in cells)} |")
    return lines


def _spread(ratio: Mapping) -> str:
    return f"**{ratio['median']:.2f}** ({ratio['low']:.2f} to {ratio['high']:.2f})"
