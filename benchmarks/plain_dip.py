"""A deep image prior in one plain PyTorch loop, written apart from lipfw: does lipfw fit as well as the textbook?

    python benchmarks/plain_dip.py PICTURE --size 128 --steps 1800 --seeds 3 --out plain.json
    python -m lipfw -m image=file image.path=PICTURE image.size=128 fit.steps=1800 seed=0..2 name=agreement
    python benchmarks/plain_dip.py --compare plain.json runs/agreement

The loop has its own network (nested modules, as published), initialisation, code and jitter, and scores with
scikit-image; only the noisy picture is lipfw's, so that both restore the same measurement.
"""
import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import nn

from lipfw.image.file import load
from lipfw.task.denoise import Denoise


def conv(i, o, k, s=1):
    """Reflection padding, convolution, batch norm, leaky ReLU."""
    return nn.Sequential(nn.ReflectionPad2d(k // 2), nn.Conv2d(i, o, k, s), nn.BatchNorm2d(o),
                         nn.LeakyReLU(0.2, inplace=True))


class Scale(nn.Module):
    """One scale around the inner ones, as in the published recursive construction."""

    def __init__(self, inputs, width, depth, skip=4):
        super().__init__()
        self.skip = conv(inputs, skip, 1)
        inner = [conv(inputs, width, 3, 2), conv(width, width, 3)]
        inner += [Scale(width, width, depth - 1)] if depth > 1 else []
        self.deep = nn.Sequential(*inner, nn.Upsample(scale_factor=2, mode="bilinear"))
        self.up = nn.Sequential(nn.BatchNorm2d(skip + width), conv(skip + width, width, 3), conv(width, width, 1))

    def forward(self, x):
        return self.up(torch.cat([self.skip(x), self.deep(x)], 1))


def fit(clean, noisy, seed, steps, every=10):
    """Return the PSNR in dB of the running average at every tenth step."""
    torch.manual_seed(1000 + seed)
    net = nn.Sequential(Scale(32, 128, 5), nn.Conv2d(128, clean.shape[1], 1), nn.Sigmoid())
    z = torch.rand(1, 32, *clean.shape[2:]) * 0.1
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    average, curve = None, []
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        out = net(z + torch.randn_like(z) / 30)
        nn.functional.mse_loss(out, noisy).backward()
        optimizer.step()
        out = out.detach()
        average = out if average is None else 0.99 * average + 0.01 * out
        if step % every == 0:
            curve.append(float(peak_signal_noise_ratio(clean.numpy(), average.numpy(), data_range=1.0)))
    return curve


def compare(plain: Path, runs: Path) -> None:
    """Print peak PSNR and its step of both, seed by seed, and the difference of the means."""
    ours = {}
    for folder in sorted(runs.glob("*/")):
        if (folder / "steps.jsonl").is_file():
            curve = [json.loads(line)["psnr"] for line in (folder / "steps.jsonl").read_text().splitlines()]
            ours[int(folder.name.rsplit("-s", 1)[1].split("-")[0])] = curve
    theirs = {int(k): v for k, v in json.loads(plain.read_text()).items()}
    rows = []
    for seed in sorted(ours.keys() & theirs.keys()):
        a, b = ours[seed], theirs[seed]
        rows.append((max(a), max(b)))
        print(f"seed {seed}: lipfw {max(a):.2f} dB at {10 * (1 + int(np.argmax(a)))}, "
              f"plain loop {max(b):.2f} dB at {10 * (1 + int(np.argmax(b)))}; "
              f"largest gap of the curves from step 300 on "
              f"{max(abs(x - y) for x, y in zip(a[29:], b[29:], strict=True)):.2f} dB")
    a, b = zip(*rows, strict=True)
    print(f"mean peak: lipfw {statistics.mean(a):.3f}, plain loop {statistics.mean(b):.3f} dB, "
          f"difference {statistics.mean(a) - statistics.mean(b):+.3f} dB over {len(rows)} seeds")


def main():
    """Fit the seeds by the plain loop, or compare two sets of curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", nargs="?")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("plain.json"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("PLAIN", "RUNS"))
    args = parser.parse_args()
    if args.compare:
        return compare(*args.compare)
    torch.set_num_threads(args.threads)
    (picture,) = load(args.picture, size=args.size)
    curves = {}
    for seed in range(args.seeds):
        started = time.time()
        problem = Denoise(25, seed)(picture)
        curves[seed] = fit(problem.image, problem.measurement, seed, args.steps)
        print(f"seed {seed}: peak {max(curves[seed]):.2f} dB, {time.time() - started:.0f} s", flush=True)
        args.out.write_text(json.dumps(curves))


if __name__ == "__main__":
    main()
