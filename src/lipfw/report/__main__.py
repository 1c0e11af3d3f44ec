"""python -m lipfw.report runs/<name> [more folders] [--out DIR] [--no-figures]"""
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lipfw.errors import InputError
from lipfw.files import write_text
from lipfw.report import account, markdown, screen
from lipfw.report.account import Account
from lipfw.report.compare import Comparison, Overview, compare, overviews
from lipfw.report.manifest import MANIFEST
from lipfw.report.read import Runs, read_runs
from lipfw.report.sheet import to_csv
from lipfw.report.stats import Group, group
from lipfw.report.study import read_studies
from lipfw.report.table import remarks
from lipfw.terminal import Parser, console, status, tell


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lipfw.report",
        description="Means and deviations over the seeds of finished runs, round by round.\n\n"
                    "Runs that differ only in their seeds form a group. Groups that differ only in\n"
                    "their pruner are compared first: dense and at sparsities that two reached.\n"
                    "Generators have their MSE beside PSNR, in training their distance instead,\n"
                    "classifiers their accuracy.\n"
                    "Of a study (a folder with study.json) first of all: how far it is, a verdict on\n"
                    "each of its claims, and published numbers beside its own.\n"
                    "The tables go to the terminal, to report.csv (all digits) and to report.md; the\n"
                    "verdicts to verdicts.csv, too. index.html has all, with figures and pictures.\n"
                    "Runs that are not finished are left out and named.",
        epilog="example: python -m lipfw.report runs/default\n\n"
               "Exit status: 0, or 1 if no run is finished, a run cannot be read or the\n"
               "report cannot be written.")
    parser.add_argument("folder", nargs="+", type=Path, help="runs/<name>, or the folder of one run")
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="folder for report.csv, report.md and the rest (default: the first folder given)")
    parser.add_argument("--no-figures", action="store_true", help="tables only: no figures and no page")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Report the runs that `argv` names; returns the exit status. A mistake is told in one line on stderr."""
    def program() -> int:
        args = _parser().parse_args(argv)
        return report(args.folder, args.out or args.folder[0], not args.no_figures)

    return status(program)


@dataclass(frozen=True)
class Section:
    """The tables of one study, or of the runs that belong to none, and what is not in them."""

    account: Account | None
    groups: Sequence[Group]
    comparisons: Sequence[Comparison]
    overviews: Sequence[Overview]
    remarks: Sequence[str]
    broken: Sequence[str]


def report(folders: Sequence[Path], out: Path, figures: bool = False) -> int:
    """Print the tables of the runs in `folders` and write report.csv and report.md to `out`; returns the exit status.

    Of studies their verdicts come first, and go to verdicts.csv. With `figures` there are index.html and figures/, too.
    Without a finished run there is no report.csv, and the rest only of studies: what they plan.
    Raises InputError if there is no finished run, once all that is written, and for folders as `read_studies` and
    `read_runs` do.
    """
    sections = read_sections(folders)
    accounts = [s.account for s in sections if s.account]
    groups = [g for s in sections for g in s.groups]
    broken, written = [line for s in sections for line in s.broken], []
    failed = bool(broken)
    if groups or accounts:
        files = {"report.csv": to_csv(groups)} if groups else {}
        files["report.md"] = _markdown(sections, accounts)
        if any(a.verdicts for a in accounts):
            files["verdicts.csv"] = account.to_csv(accounts)
        try:
            out.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                write_text(out / name, text)
            written = [*files]
        except OSError as e:        # the table is still worth printing
            failed = True
            broken.append(f"cannot write to {out}: {e.strerror or e}; choose another folder with --out DIR")
    _print(sections, accounts)
    if figures and written:
        try:
            written += _draw(sections, out)
        except (InputError, OSError) as e:      # tables are there
            failed = True
            broken.append(str(e) if isinstance(e, InputError) else f"cannot write figures to {out}: {e.strerror or e}")
    if written:
        console().print(f"{out}/: {', '.join(written)}", soft_wrap=True)
    sys.stdout.flush()
    for line in broken:
        tell(line)
    if not groups:
        raise InputError(f"no finished run to report in {', '.join(map(str, folders))}")
    return int(failed)


def _print(sections: Sequence[Section], accounts: Sequence[Account]) -> None:
    to = console()
    if len(accounts) > 1:
        to.print(screen.index(accounts))
    for s in sections:
        if s.account:
            to.print(screen.study(s.account, to))
        if s.groups:
            to.print(screen.terminal(s.groups, s.comparisons, to, s.overviews))
        for line in s.remarks:
            to.print(line, soft_wrap=True)
    sys.stdout.flush()      # figures take a while


def _draw(sections: Sequence[Section], out: Path) -> list[str]:
    """Write the figures and the page; returns what was written."""
    from lipfw.report.page import write_report  # matplotlib takes a second to import

    rest = [s for s in sections if not s.account]
    write_report(out, [s.account for s in sections if s.account], [g for s in rest for g in s.groups],
                 [c for s in rest for c in s.comparisons])
    return ["index.html", *["figures/"] * (out / "figures").is_dir()]


def read_sections(folders: Sequence[Path]) -> list[Section]:
    """Return a section for each study in the folders, and one for the runs that belong to none, if there are such.

    Raises InputError as `read_studies`, `account` and `read_runs` do.
    """
    folders = [Path(f) for f in folders]
    others = [f for f in folders if not (f / MANIFEST).is_file()]
    rest = read_runs(others)        # first: a folder that is not there is told at once
    studies = read_studies([f for f in folders if f not in others])
    sections = []
    for study in studies:
        broken = [f"cannot read {c['path']}: {c['reason']}" for c in study.cells if c["state"] == "unreadable"]
        told = account.account(study)
        sections.append(_section(Runs(list(study.runs.values())), broken, told, told.missing))
    mine = {f.resolve() for study in studies for f in study.runs}
    rest.finished = [r for r in rest.finished if r.folder.resolve() not in mine]
    if rest.finished or rest.unfinished or rest.unreadable or not sections:
        broken = [f"cannot read {folder}: {reason}" for folder, reason in rest.unreadable]
        sections.append(_section(rest, broken))
    return sections


def _section(runs: Runs, broken: Sequence[str], told: Account | None = None, missing: Sequence[str] = ()) -> Section:
    groups, twins = group(runs.finished)
    return Section(told, groups, compare(groups), overviews(groups), [*remarks(runs, twins), *missing], broken)


def _markdown(sections: Sequence[Section], accounts: Sequence[Account]) -> str:
    text = [markdown.index(accounts)] if len(accounts) > 1 else []
    for s in sections:
        if s.account:
            text.append(markdown.study(s.account))
        elif accounts:
            text.append("## Other runs\n")
        if s.groups:
            text.append(markdown.to_markdown(s.groups, s.comparisons, [*s.remarks, *s.broken], s.overviews))
        elif s.remarks or s.broken:
            text.append("\n".join([*(f"- {line}" for line in (*s.remarks, *s.broken)), ""]))
    return "\n".join(text)


if __name__ == "__main__":
    sys.exit(main())
