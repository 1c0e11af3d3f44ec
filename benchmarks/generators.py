"""Fits with a generator, and its training: against published-style loops, the bare network and the matrix's size.

Weights are random, which changes no time. Of times a larger ratio is faster, but for rows against the bare network or a
time: these, and memory, are smaller where it is better. A CPU benchmark.
"""
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from statistics import median

import torch

from benchmarks.published_gan import Game, PlainGenerator, Training
from benchmarks.row import Row, speed
from benchmarks.setting import Setting
from benchmarks.timing import in_turns, ratio, sampler, seconds_of
from benchmarks.worker import ROOT, forget_peak, peak_memory
from lipfw.fit.finetuning import FineTuning
from lipfw.fit.restoration import Restoration
from lipfw.gan.network import PUBLISHED, Critic, Generator
from lipfw.gan.weights import Weights
from lipfw.image.skimage import load
from lipfw.malloc import keep_freed_memory
from lipfw.prior.pggan import PGGAN
from lipfw.problem import Problem
from lipfw.task.clean import Clean
from lipfw.task.cs import CompressedSensing

ITERATIONS, LIMIT = 1500, 120       # of the game, and the seconds that they may take
SMALL, LARGE = ((128, 128, 64, 32, 16), 128), (PUBLISHED[:7], 512)      # channels and latent numbers at 64 and 256 px
TRAINED = ((128, 96, 64, 32), 128)      # as the generator that ships, at 32 px
TINY = ((4, 4, 4), 4)


def measure(setting: Setting) -> Iterator[Row]:
    """Time the game, a step and a training step in turns; measure memory in processes of their own."""
    if setting.device != "cpu":
        yield Row("fits with a generator", note="measured on a CPU alone")
        return
    yield from _game(setting)
    yield from _step(setting)
    yield from _memory(setting)
    yield _training(setting)


def _game(setting: Setting) -> Iterator[Row]:
    """The rows of the median-of-means game, at 64 pixels."""
    channels, latent = TINY if setting.quick else SMALL
    problem = _sensed(16 if setting.quick else 64, 60 if setting.quick else 1000)
    published = PlainGenerator(channels, latent)
    samples = in_turns(_samplers({"game": _fit(problem, channels, latent, "mom").fit_step,
                                  "published": Game(published, problem).step}, setting), setting.turns(7))
    what = f"a median-of-means iteration, {problem.shape[2]} px, {problem.measurement.shape[1]} measurements"
    yield speed(what, "published-style loop", samples, ("game", "published"))
    whole = [t * ITERATIONS for t in samples["game"]]
    yield Row(f"{ITERATIONS:,} of these, extrapolated", f"{LIMIT} s", ratio(whole, [LIMIT] * len(whole)),
              {"ms": 1000 * median(whole), "ms against": 1000 * LIMIT}, goal="game 64")


def _step(setting: Setting) -> Iterator[Row]:
    """The rows of least squares on a picture, at 256 pixels."""
    channels, latent = TINY if setting.quick else LARGE
    problem = Clean()(load("astronaut", size=16 if setting.quick else 256)[0])
    networks = {"bare": Generator(channels, latent).requires_grad_(False), "plain": PlainGenerator(channels, latent)}
    networks["plain"].requires_grad_(False)

    def bare(network: Generator) -> Callable[[], None]:
        z = torch.randn(1, latent, requires_grad=True)

        def step() -> None:
            torch.autograd.grad(network(z).square().mean(), z)

        return step

    samples = in_turns(_samplers({"fit": _fit(problem, channels, latent, "ls").fit_step,
                                  **{name: bare(n) for name, n in networks.items()}}, setting), setting.turns(7))
    for name, called, goal in (("bare", "bare network, forward and backward", "code 256"),
                               ("plain", "network in plain operators, forward and backward", "")):
        yield Row(f"a step on a picture, {problem.shape[2]} px", called, ratio(samples["fit"], samples[name]),
                  {"ms": 1000 * median(samples["fit"]), "ms against": 1000 * median(samples[name])}, goal=goal)


def _memory(setting: Setting) -> Iterator[Row]:
    """The rows of compressed sensing's peak memory, at 256 pixels."""
    for bits in (32,) if setting.quick else (32, 16):
        code = f"from benchmarks.generators import grown; print(*grown({bits}, {setting.quick}, {setting.threads}))"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                              env={**os.environ, "OMP_NUM_THREADS": str(setting.threads)})
        if done.returncode:
            raise RuntimeError(f"compressed sensing failed:\n{done.stderr[-2000:]}")
        peak, matrix, weights = map(float, done.stdout.split())
        yield Row(f"compressed sensing by median of means, peak memory, {bits}-bit matrix, "
                  f"{16 if setting.quick else 256} px", "the matrix", ratio([peak], [matrix]),
                  {"MB": peak / 1e6, "MB against": matrix / 1e6}, f"with {weights / 1e6:.0f} MB of weights",
                  goal="sensing 256" if bits == 32 else "")


def grown(bits: int, quick: bool, threads: int, steps: int = 4) -> tuple[float, int, int]:
    """Return by how much this process's peak memory grows, from before the matrix is made to after a few steps.

    And the sizes of the matrix and of the weights, all in bytes.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()     # as the command line does
    channels, latent = TINY if quick else LARGE
    picture, = load("astronaut", size=16 if quick else 256)
    forget_peak()
    before = peak_memory("cpu")
    problem = CompressedSensing(60 if quick else 1000, corrupted=2, matrix=bits)(picture)
    module = _fit(problem, channels, latent, "mom")
    for _ in range(steps):
        module.fit_step()
    return (peak_memory("cpu") - before, problem.operator.matrix.nbytes,
            sum(p.nbytes for p in module.prior.network.parameters()))


def _training(setting: Setting) -> Row:
    """The row of a training step, at 32 pixels."""
    channels, latent = TINY if setting.quick else TRAINED
    side, batch = 4 * 2 ** (len(channels) - 1), 4 if setting.quick else 32
    pixels = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
    prior = PGGAN(Weights(Generator(channels, latent), Critic(channels), {}), [(3, side, side)])
    module = FineTuning(pixels, prior, epochs=10 ** 6, batch=batch, penalised=batch // 4, judge_every=10 ** 6,
                        precision="bf16")
    optimizers = module.configure_optimizers()
    module.optimizers = lambda use_pl_optimizer=True: optimizers        # what Lightning would give
    plain = Training(PlainGenerator(channels, latent), Critic(channels), pixels)
    samples = in_turns(_samplers({"lipfw": module.fit_step, "plain": plain.step}, setting), setting.turns(7))
    return speed(f"a training step, penalty on {batch // 4} of {batch} pictures, bf16, {side} px",
                 "plain loop: all pictures, 32 bits", samples, ("lipfw", "plain"))


def _sensed(size: int, measurements: int) -> Problem:
    (picture,) = load("astronaut", size=size)
    return CompressedSensing(measurements, corrupted=measurements // 50)(picture)


def _fit(problem: Problem, channels: tuple[int, ...], latent: int, objective: str) -> Restoration:
    """Return lipfw's fit as a run has it, pick and metrics included, to be stepped by `fit_step`."""
    prior = PGGAN(Weights(Generator(channels, latent), None, {}), [problem.shape])
    module = Restoration([problem], prior, steps=10 ** 6, objective=objective)
    module.on_fit_start()       # what Lightning would call
    module.stepper = module.search(module, module.configure_optimizers())
    return module


def _samplers(steps: dict[str, Callable[[], object]], setting: Setting) -> dict[str, Callable[[], float]]:
    def run(step: Callable[[], object], count: int) -> float:
        return seconds_of(lambda: [step() for _ in range(count)], "cpu")

    return {name: sampler(lambda count, step=step: run(step, count), 0 if setting.quick else 0.5)
            for name, step in steps.items()}
