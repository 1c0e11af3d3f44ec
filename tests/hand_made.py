"""A small study made by hand, for figures and pages: every number is known, and files lie where runs leave them."""
import json

import numpy as np
import torch

from lipfw.image.write import sheet, write_png
from lipfw.mask import Mask
from lipfw.report.read import Run
from lipfw.report.study import Point, Series, Study
from lipfw.ticket import Ticket

LADDER = (0.0, 0.36, 0.5904, 0.8926)
LAYERS = {"a.weight": (6, 4, 3, 3), "b.weight": (5, 6, 1, 1), "c.weight": (3, 5, 3, 3)}
STEPS = (10, 20, 30)
SIDE = 16


def psnr(series, picture, seed, round_):
    """The peak of a hand-made run, in dB."""
    return 25 + {"imp": 0.5, "random": -0.7 * round_, "decoder": -2}[series] + (picture == "woman") + 0.25 * seed \
        - 0.1 * round_ ** 2


def run(folder, series="imp", picture="bird", seed=0, files=False, side=SIDE):
    """A run's points; with `files` its folder has steps, tickets and pictures too."""
    ladder = LADDER if series != "decoder" else LADDER[:1]
    losses = [0.02, 0.018, 0.019, 0.025]
    rounds = [{"round": r, "sparsity": s, "loss": losses[r] + 0.001 * seed,
               "params_left": 5000 if series == "decoder" else round(100_000 * (1 - s)),
               "psnr_peak": psnr(series, picture, seed, r), "psnr_picked": psnr(series, picture, seed, r) - 0.3,
               "psnr_final": 20.0, "ssim_picked": 0.8, "mse_peak": 0.01 * (r + 1), "seconds": 60.0}
              for r, s in enumerate(ladder)]
    path = folder / f"{series}-{picture}-s{seed}"
    values = {"image.name": picture, "pruner": series, "seed": str(seed)}
    made = Run(path, f"denoise-{picture}-skip-{series}", {"prior._target_": "lipfw.prior.skip.build"}, {"seed": seed},
               {}, rounds, min(1, len(rounds) - 1), {"psnr": 20.5, "ssim": 0.4}, device="cpu")
    if files:
        write(path, rounds, seed, side)
    return tuple(Point(path, r["round"], r["sparsity"], r["params_left"], r, values, made) for r in rounds)


def picture(number, side=SIDE):
    """Pixels (1, 3, side, side + 4) that are no other picture's, of 8-bit levels."""
    levels = np.random.default_rng(number).integers(0, 256, (1, 3, side, side + 4))
    return torch.from_numpy(levels).float() / 255


def mask(seed, round_, sparsity):
    """A mask whose layers differ in their sparsity."""
    random = np.random.default_rng([seed, round_])
    return Mask({name: torch.from_numpy(random.random(shape) >= sparsity * (0.5 + 0.25 * i))
                 for i, (name, shape) in enumerate(LAYERS.items())})


def write(path, rounds, seed, side):
    """Write what a run leaves: steps.jsonl, tickets, pictures, compare.png."""
    (path / "restored").mkdir(parents=True)
    (path / "tickets").mkdir()
    lines = [{"round": r["round"], "step": s, "loss": 1 / (s + r["round"] + seed), "psnr": s + r["round"] + seed,
              "psnr_raw": 1.0, "ssim": s / 100} for r in rounds for s in STEPS[:3 - (seed == 1)]]
    (path / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for r in rounds:
        n = r["round"]
        Ticket(mask(seed, n, r["sparsity"]), {}).save(path / f"tickets/round_{n:02d}.safetensors")
        write_png(path / f"restored/round_{n:02d}.png", picture(100 * seed + n, side))
        for step in STEPS[:2]:
            write_png(path / f"restored/round_{n:02d}_step_{step:05d}.png", picture(1000 * step + n, side))
    clean, degraded = picture(7, side), picture(8, side)
    sheet([("clean", clean), ("degraded\n20.50 dB", degraded), ("restored\n25.00 dB", picture(1, side)),
           ("error x4", clean)], path / "compare.png")


def study(folder, files=False, side=SIDE, pictures=("bird", "woman"), **spec):
    """The study: imp (all runs), random (one run missing), snip (none run), dense, decoder."""
    def points(series, seeds=(0, 1)):
        return tuple(p for name in pictures for s in seeds for p in run(folder, series, name, s, files, side))

    def cell(series, name, seed):
        return {"stage": "found", "folder": f"{series}-{name}-s{seed}", "path": None, "state": "planned",
                "reason": "not started", "values": {"image.name": name, "pruner": series, "seed": str(seed)}}

    imp, random = points("imp"), points("random")
    random = tuple(p for p in random if (p.picture, p.seed) != (pictures[-1], "1"))
    gone = cell("random", pictures[-1], 1)
    never = [cell("snip", name, s) for name in pictures for s in (0, 1)]
    def series_of(name, label, points, missing=(), fixed=None):
        planned = {p.folder: p.values for p in points}
        return Series(name, label, points, tuple(missing), fixed, (*planned.values(), *(c["values"] for c in missing)))

    series = {s.name: s for s in (
        series_of("imp", "LIP", imp), series_of("random", "random", random, [gone]),
        series_of("snip", "SNIP", (), never),
        series_of("dense", "dense", tuple(p for p in imp if p.round == 0), fixed=0),
        series_of("decoder", "deep decoder", points("decoder")))}
    done = {p.folder: p for s in series.values() for p in s.points}
    cells = [{"stage": "found", "folder": f.name, "path": f, "state": "done", "reason": "", "values": p.values}
             for f, p in done.items()]
    return Study(folder, "fig3", "Fig 3", "Do lottery <image> priors exist?", "They do.", "tiny", "psnr_peak",
                 [*cells, gone, *never], series, {"stages": {"found": {}}, **spec}, folders=(folder,),
                 runs={f: p.run for f, p in done.items()})
