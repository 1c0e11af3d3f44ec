"""python -m benchmarks: measure, and write a page and a JSON file."""
import argparse
import json
import sys
import time
import traceback
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.machine import about
from benchmarks.page import page
from benchmarks.setting import Setting

NAMES = ("step", "sparse", "imp", "throughput", "memory", "peak", "imports", "overhead", "generators", "grid")


def main() -> int:
    """Measure what is asked for; results of other benchmarks in the same folder stay. Returns 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast is lipfw, and against what?")
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder for page.md and results.json")
    parser.add_argument("--only", metavar="NAME[,NAME]", help="some of the benchmarks")
    parser.add_argument("--quick", action="store_true", help="tiny networks, seconds: does it all run?")
    parser.add_argument("--list", action="store_true", help="name the benchmarks")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: as torch chooses")
    args = parser.parse_args()
    if args.list:
        for name in NAMES:
            print(f"{name:<12}{import_module(f'benchmarks.{name}').__doc__.splitlines()[0]}")
        return 0
    names = args.only.split(",") if args.only else list(NAMES)
    if unknown := [n for n in names if n not in NAMES]:
        parser.error(f"no benchmark {unknown[0]}; there are {', '.join(NAMES)}")
    torch.set_num_threads(args.threads)
    setting = Setting(args.out, "cuda" if torch.cuda.is_available() else "cpu", args.threads, args.quick)
    args.out.mkdir(parents=True, exist_ok=True)
    results = _kept(args.out / "results.json", args.quick)
    for name in names:
        results[name] = _measure(name, setting)
        results = {n: results[n] for n in NAMES if n in results}
        (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")    # a kill loses one benchmark
        (args.out / "page.md").write_text(page(results))
    print(args.out / "page.md")
    return int(any(results[n]["error"] for n in names))


def _kept(path: Path, quick: bool) -> dict:
    """Return the results that lie there already, if they are of the same kind."""
    results = json.loads(path.read_text()) if path.is_file() else {}
    return {n: r for n, r in results.items() if r["about"]["quick"] == quick}


def _measure(name: str, setting: Setting) -> dict:
    """Run one benchmark and tell its rows as they come; one that fails does not stop the others."""
    started, rows, error = time.monotonic(), [], None
    print(f"{name}: {import_module(f'benchmarks.{name}').__doc__.splitlines()[0]}", flush=True)
    try:
        for row in import_module(f"benchmarks.{name}").measure(setting):
            rows.append(asdict(row))
            ratio = f" {row.ratio.median:.3f}" if row.ratio else ""
            print(f"  {row.what}{' / ' * bool(row.against)}{row.against}{ratio} "
                  + ", ".join(f"{v:.4g} {k}" for k, v in row.numbers.items()) + f" {row.note}", flush=True)
    except Exception as e:
        error = f"{type(e).__name__}: {e}"
        traceback.print_exc()
    return {"about": {**about(setting), "quick": setting.quick, "seconds": round(time.monotonic() - started)},
            "rows": rows, "error": error}


if __name__ == "__main__":
    sys.exit(main())
