"""Do the kernels find the same tickets? Compares two sets of runs, seed by seed and round by round.

    python -m lipfw pruner=imp image.size=64 fit.steps=250 fit.kernel=auto name=auto -m seed=0..2
    python -m lipfw pruner=imp image.size=64 fit.steps=250 fit.kernel=dense name=dense -m seed=0..2
    python -m benchmarks.agree runs/auto runs/dense

Rounding alone makes two fits part ways: Adam amplifies it within a few steps. So what is compared is the PSNR, against
the scatter over seeds, and how much the tickets overlap (kept by both over kept by either), against the overlap of two
random masks of that density.
"""
import argparse
import json
import statistics
from pathlib import Path

from lipfw.mask import Mask
from lipfw.ticket import Ticket


def runs_in(folder: Path) -> dict[int, Path]:
    """Return the finished runs of a folder by seed."""
    runs = [(json.loads(p.read_text()), p.parent) for p in sorted(folder.glob("*/result.json"))]
    found = {result["config"]["seed"]: path for result, path in runs if (path / "tickets").is_dir()}
    if not found or len(found) < len(runs):
        raise SystemExit(f"{folder} must hold finished runs with tickets that differ by their seed alone")
    return found


def overlap(a: Mask, b: Mask) -> float:
    """Return kept by both over kept by either."""
    both = sum(int((a[n] & b[n]).sum()) for n in a)
    return both / (a.count + b.count - both)


def main() -> None:
    """Print a table of the rounds: times, PSNR of both, overlap of their tickets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    args = parser.parse_args()
    sides = [runs_in(args.first), runs_in(args.second)]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    if not seeds:
        raise SystemExit(f"{args.first} and {args.second} have no seed in common")
    results = [[json.loads((side[s] / "result.json").read_text()) for s in seeds] for side in sides]
    if len({len(result["rounds"]) for side in results for result in side}) > 1:
        raise SystemExit("the runs have different numbers of rounds")
    names = [args.first.name, args.second.name]
    print(f"| round | sparsity | {names[0]}, s | {names[1]}, s | {names[0]}, peak PSNR | {names[1]}, peak PSNR | "
          "overlap | of random masks |\n" + "|---" * 8 + "|")
    for r in range(len(results[0][0]["rounds"])):
        rounds = [[result["rounds"][r] for result in side] for side in results]
        seconds = [statistics.mean(x["seconds"] for x in side) for side in rounds]
        psnr = [[x["psnr_peak"] for x in side] for side in rounds]
        tickets = [[Ticket.load(side[s] / "tickets" / f"round_{r:02d}.safetensors").mask for s in seeds]
                   for side in sides]
        density = tickets[0][0].density
        print(f"| {r} | {rounds[0][0]['sparsity']:.2%} | {seconds[0]:.1f} | {seconds[1]:.1f} | {_spread(psnr[0])} | "
              f"{_spread(psnr[1])} | {statistics.mean(map(overlap, *tickets)):.3f} | {density / (2 - density):.3f} |")
    total = [statistics.mean(result["seconds"] for result in side) for side in results]
    difference = [a["psnr_peak"] - b["psnr_peak"] for x, y in zip(*results, strict=True)
                  for a, b in zip(x["rounds"], y["rounds"], strict=True)]
    print(f"\n{len(seeds)} seeds; {names[0]} {total[0]:.0f} s a run, {names[1]} {total[1]:.0f} s, ratio "
          f"{total[1] / total[0]:.2f}; difference of the peaks over all rounds and seeds "
          f"{statistics.mean(difference):+.3f} dB, largest {max(map(abs, difference)):.3f} dB")


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
