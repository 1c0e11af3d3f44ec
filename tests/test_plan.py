"""python -m lipfw.plan: FLOPs against formulas, kinds and wall times against counts by hand, disk against a run."""
import itertools
import os
import random
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

import lipfw.run
from lipfw.configs import CONF
from lipfw.errors import InputError
from lipfw.fit.checkpoint import Checkpoint
from lipfw.fit.restoration import Restoration
from lipfw.image.named import tables
from lipfw.plan.__main__ import main
from lipfw.plan.blank import dataset, labelled, load, pictures, sizes
from lipfw.plan.devices import DEVICES, named
from lipfw.plan.disk import Disk
from lipfw.plan.flops import Flops, step_flops
from lipfw.plan.kinds import Kinds
from lipfw.plan.makespan import makespan
from lipfw.plan.study import figures
from lipfw.plan.work import Planner, Work
from lipfw.prior import decoder, skip
from lipfw.problem import Problem
from lipfw.run import parts
from lipfw.task.operators import Identity

SMALL = ["prior.channels=8", "prior.depth=2", "logger=none"]


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


def job(*overrides, blank=None):
    cfg = OmegaConf.create(OmegaConf.to_container(composed(*overrides, "logger=none"), resolve=True))
    return parts(cfg, blank if blank is not None else load(cfg.image), None)


def work(*overrides, measure=False, blank=None):
    kinds = Kinds()
    kinds.add(composed(*overrides, "logger=none"), pictures=blank)
    (kind,) = kinds
    return Planner(measure)(kind)


def test_a_classical_method_has_no_flops_and_is_measured_on_the_cpu():
    w = work("fit=baseline", "fit.method=nlm", "image.size=48", "trainer.threads=1", measure=True)
    assert (w.prior, w.parameters, w.steps, w.flops_a_run) == ("nlm", 0, (1,), 0) and w.hours_here() > 0
    assert "CPU" in " ".join(w.remarks)


# ---- FLOPs ------------------------------------------------------------------------------------------------------

def convolution(inputs, outputs, kernel, side, from_code=False):
    """Forward, gradient of the weights and, but for the first layer, of the input: a product and a sum are two."""
    return 2 * kernel ** 2 * inputs * outputs * side ** 2 * (2 if from_code else 3)


def restoration(build, size=32, count=1, **options):
    shapes = [(3, size, size)] * count
    problems = [Problem(f"p{i}", s, Identity(), torch.rand(1, *s), torch.rand(1, *s)) for i, s in enumerate(shapes)]
    return Restoration(problems, build(shapes, **options), steps=5)


def test_flops_of_the_deep_decoder_are_those_of_the_formula():
    k, size = 5, 32
    by_hand = convolution(k, k, 1, size // 4, from_code=True) + convolution(k, k, 1, size // 2) \
        + convolution(k, k, 1, size) + convolution(k, 3, 1, size)
    assert step_flops(restoration(decoder.build, size, channels=k, depth=2)) == {0: by_hand}
    # each picture has a step of its own; those that share a code share its network's
    assert step_flops(restoration(decoder.build, size, count=3, channels=k, depth=2)) == {0: 3 * by_hand}
    assert step_flops(restoration(decoder.build, size, count=3, channels=k, depth=2, code="shared")) == {0: by_hand}


def test_flops_of_the_hourglass_are_those_of_the_formula():
    c, s, z, size = 6, 2, 4, 32
    by_hand = 0
    for scale in range(2):
        inputs, side = (z, size) if scale == 0 else (c, size // 2)
        by_hand += convolution(inputs, s, 1, side, from_code=scale == 0)               # skip
        by_hand += convolution(inputs, c, 3, side // 2, from_code=scale == 0)          # down, stride 2
        by_hand += convolution(c, c, 3, side // 2)
        by_hand += convolution(c + s, c, 3, side) + convolution(c, c, 1, side)         # up
    by_hand += convolution(c, 3, 1, size)
    module = restoration(skip.build, size, channels=c, depth=2, skip_channels=s, code_channels=z)
    before = {n: t.clone() for n, t in module.prior.state_dict().items()}
    assert step_flops(module) == {0: by_hand}
    # and nothing has been done
    assert all(torch.equal(t, before[n]) for n, t in module.prior.state_dict().items())
    assert all(p.grad is None for p in module.parameters()) and module.prior.jitter > 0


def test_flops_at_the_published_scale():
    """460 GFLOP at 512 x 512 pixels (19.37 GMAC a forward pass at 256 x 256), in no time and little memory."""
    flops = step_flops(job("image.size=512", "pruner=imp").module)[0]
    assert flops == pytest.approx(3 * 2 * 4 * 19.37e9, rel=0.02)


def test_a_code_costs_the_gradient_of_the_input_alone():
    module = job("task=inpaint", "prior=pggan", "image=face").module
    forward = Flops()
    with torch.no_grad(), forward:
        module.prior.made(module.prior.codes)
    assert step_flops(module)[0] == pytest.approx(2 * forward.total, rel=1e-3)
    game = job("task=cs").module        # two codes move, each by a forward and a backward pass
    products = 4 * 2 * 1000 * 3072
    assert step_flops(game)[0] == pytest.approx(2 * 2 * forward.total + products, rel=1e-3)
    # what a mask hides is left out of the game, and how much that is no shape tells
    assert step_flops(job("task=inpaint", "prior=pggan", "image=face", "fit.objective=mom").module)[0] \
        == pytest.approx(4 * forward.total, rel=1e-3)


def test_flops_of_a_training_are_those_of_a_real_step():
    module = job("task=gan", "image.size=16", "prior.channels=[8,6,4]", "fit.batch=4", "fit.stable=40",
                 "fit.fade=0").module
    found = step_flops(module)
    assert found.keys() == {0, 1, 2}
    for scale, counted in found.items():
        with Flops() as real:
            loss, *_ = module.critic_loss(module.reals(0, scale, 0.0), 0, scale, 0.0)
            loss.backward()
            module.generator_loss(0, scale, 0.0).backward(inputs=list(module.prior.network.parameters()))
        assert counted == real.total > 0
    small, large = (work("task=finetune", "prior.weights=null", "prior.channels=[8,6,4]", f"fit.generator_batch={n}",
                         blank=dataset(100, 16)) for n in (1, 64))
    assert small.flops_a_step < large.flops_a_step
    assert small.steps == (30,) and small.pictures == "40 of 16x16"     # 40 % of 100 pictures, 64 a step, 30 times


def test_flops_of_a_classification_are_those_of_its_layers():
    """Three products a layer, but for the two first, whose input has no gradient."""
    module = job("task=classify", "image.size=9", "prior.channels=8", "prior.depth=2", "fit.batch=7").module
    total, first = 0, {module.network.encoders[0].skip[0], module.network.encoders[0].down[0]}

    def count(layer, args, out):
        nonlocal total
        products = out.numel() * layer.weight[0].numel()
        total += 2 * products * (2 if layer in first else 3)

    for layer in module.network.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            layer.register_forward_hook(count)
    module.logits(module.train_pixels[:7])
    for layer in module.network.modules():
        layer._forward_hooks.clear()
    assert step_flops(module) == {0: total}


def test_a_classification_is_planned_without_its_pictures():
    blank_set = labelled(50000, 10000, 50, 10)
    found = work("task=classify", "pruner=imp", "pruner.rounds=2", blank=blank_set)
    assert found.steps == (182 * 195,) * 3 and found.pictures == "50,000 of 50x50"      # 195 batches of 256
    assert found.parameters == 2_259_317
    measured = work("task=classify", *SMALL, "image.size=9", "trainer.threads=1", measure=True)
    assert measured.seconds[0] > 0 and not measured.remarks
    assert "not measured: its pictures are not here" in work("task=classify", blank=blank_set, measure=True).remarks


# ---- kinds, rounds, steps ---------------------------------------------------------------------------------------

def show(capsys, *argv, err=""):
    status = main([*argv])
    out, told = capsys.readouterr()
    assert status == 0 and (err is None or told == err)
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    return lines


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, which stays empty; the terminal has 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("LIPFW_DATA", raising=False)
    yield
    assert not list(Path().iterdir())


def test_the_kinds_of_a_sweep(here, capsys):
    lines = show(capsys, "--no-measure", "pruner=imp,random", "pruner.rounds=2", "image.size=32,48", "task.sigma=15,25",
                 "fit.steps=30", *SMALL, "-m", "seed=0..4")
    kinds = [line.split() for line in lines[1:lines.index("")]]
    assert len(kinds) == 2 * 2 and all(k[:2] == ["10", "denoise"] for k in kinds)
    assert sorted((k[2], k[5]) for k in kinds) == [(s, p) for s in ("32x32", "48x48") for p in ("imp", "random")]
    assert all(k[6:8] == ["3", "30"] for k in kinds)
    assert any(line.startswith(f"40 runs, {40 * 3} rounds, {40 * 3 * 30:,} steps, ") for line in lines)


def test_the_sweep_of_an_experiment_counts(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "mine.yaml").write_text("defaults: [config, _self_]\nfit: {steps: 7}\nimage: {size: 32}\n"
                                        "hydra: {sweeper: {params: {seed: '0,1,2'}}}\n")
    lines = show(capsys, "-cn", "mine", "--config-dir", str(tmp_path), "--no-measure", *SMALL, "task.sigma=5,50")
    assert any(line.startswith("6 runs, 6 rounds, 42 steps, ") for line in lines)


def test_rounds_after_a_rewind_and_fits_side_by_side():
    remaining = work(*SMALL, "image.size=32", "pruner=imp", "pruner.rounds=3", "pruner.rewind_step=25%", "fit.steps=40",
                     "pruner.retrain=remaining")
    assert remaining.steps == (40, 30, 30, 30)
    kinds = Kinds()
    for seed in (0, 4):
        kinds.add(composed(*SMALL, "image.size=32", f"seed={seed}", "fit.batch_seeds=4"))
    (kind,) = kinds
    assert (kind.runs, kind.cells, kind.side) == (8, 2, 4)
    alone, beside = work(*SMALL, "image.size=32"), Planner(False)(kind)
    device, floor = DEVICES["H100"], 1e-3
    assert beside.flops_a_run == alone.flops_a_run      # of one run
    # the floor is for all that are side by side; where products take longer, each adds its own
    assert beside.hours_on(device, 0.3, floor) == alone.hours_on(device, 0.3, floor) == 3000 * floor / 3600
    assert beside.hours_on(device, 0.3, 0) == pytest.approx(4 * alone.hours_on(device, 0.3, 0))


def test_a_whole_set_needs_no_pictures(here):
    small = ["prior=decoder", *SMALL]
    whole = work("image=set5", *small)
    each = [work("image=set5", f"image.name={name}", *small) for name in sizes()["set5"]]
    assert whole.pictures == "5 pictures" and each[-1].pictures == "228x344"
    assert whole.flops_a_step == sum(w.flops_a_step for w in each)
    assert [p.pixels.shape for p in load(composed("image=set5", "image.name=woman", "image.fit_size=crop").image)] \
        == [(1, 3, 320, 224)]
    assert load(composed("image=set12", "image.name=10").image)[0].name == "boat"


def test_the_table_of_sizes_is_that_of_the_pictures():
    assert {s: list(names) for s, names in sizes().items()} == {s: list(t["files"]) for s, t in tables().items()}
    folder = Path(os.environ.get("LIPFW_DATA") or "nowhere")
    for s, names in sizes().items():
        for name, (width, height, channels) in names.items():
            if (path := folder / s / tables()[s]["files"][name]["file"]).is_file():
                with Image.open(path) as image:
                    assert (*image.size, 1 if image.mode == "L" else 3) == (width, height, channels)


def test_a_published_generator_is_not_downloaded():
    assert work("task=inpaint", "prior=pggan", "prior.weights=celebahq256", "fit.steps=3",
                blank=pictures(1, 256, 256)).parameters == 23_051_989
    with pytest.raises(InputError, match="image.size=512"):
        work("task=inpaint", "prior=pggan", "prior.weights=celebahq512", blank=pictures(1, 256, 256))


# ---- hours ------------------------------------------------------------------------------------------------------

def made(**options):
    options = {"steps": (100, 50), "flops": {0: 3e12, 1: 6e12}, "shares": {0: 0.75, 1: 0.25}, **options}
    return Work("denoise", "1x1", "skip", "imp", options.pop("precision", "32"), 1, disk=Disk(1, 1), **options)


def test_hours_on_a_device_by_hand():
    w, v100, a100 = made(), DEVICES["V100"], DEVICES["A100"]
    assert w.flops_a_run == 150 * (0.75 * 3e12 + 0.25 * 6e12)
    assert w.hours_on(v100, 0.5, 0) == pytest.approx(w.flops_a_run / (15.7e12 * 0.5) / 3600)
    assert w.hours_on(a100, 1, 0) == pytest.approx(w.flops_a_run / 156e12 / 3600)
    assert made(precision="bf16").hours_on(a100, 1, 0) == pytest.approx(w.flops_a_run / 312e12 / 3600)
    assert made(precision="bf16").hours_on(v100, 1, 0) == w.hours_on(v100, 1, 0)       # it has none
    # 3 TFLOP take 19 ms, less than the floor, and 6 TFLOP 38 ms
    assert w.hours_on(a100, 1, 0.03) == pytest.approx(150 * (0.75 * 0.03 + 0.25 * 6 / 156) / 3600)
    assert made(seconds=(2.0, 1.0), side=3).hours_here() == 3 * (2 * 100 + 50) / 3600 and w.hours_here() is None
    assert [d.name for d in named(["h100", " V100"])] == ["H100", "V100"] and len(named(None)) == len(DEVICES)


def test_the_wall_time_is_near_the_best():
    rng = random.Random(0)
    for _ in range(40):
        times, slots = [rng.choice((1, 2, 3, 5, 8)) for _ in range(rng.randint(1, 7))], rng.randint(1, 3)
        best = min(max(sum(t for t, s in zip(times, where, strict=True) if s == slot) for slot in range(slots))
                   for where in itertools.product(range(slots), repeat=len(times)))
        found = makespan([(t, 1) for t in times], slots)
        assert max(max(times), sum(times) / slots) <= best <= found <= (4 / 3 - 1 / (3 * slots)) * best + 1e-9
        assert makespan([(t, 2) for t in times], slots) == makespan([(t, 1) for t in times + times], slots)
        assert makespan([(t, 1) for t in times], 1) == sum(times)
    assert makespan([], 8) == 0


def test_steps_are_measured_and_kinds_share_what_is(here, capsys):
    lines = show(capsys, "pruner=imp,random", "pruner.rounds=2", "image.size=32", "fit.steps=30", "trainer.threads=1",
                 *SMALL, "--device", "A100", "--gpus", "1,2", "-m", err=None)
    (row,) = [line for line in lines if line.startswith("this machine")]
    assert "measured" in row and any("1 thread of this CPU" in line for line in lines)
    assert [line.split()[-4:] for line in lines if line.startswith("wall time on")] == [["1", "GPU", "2", "GPUs"]]
    said = []
    planner, kinds = Planner(True, said.append), Kinds()
    for pruner in ("imp", "random"):
        kinds.add(composed(*SMALL, f"pruner={pruner}", "pruner.rounds=2", "image.size=32", "fit.steps=30"))
    works = [planner(kind) for kind in kinds]
    assert len(said) == 1 and works[0].seconds == works[1].seconds
    assert len(works[0].seconds) == 3 and all(0 < s < 1 for s in works[0].seconds)


# ---- disk -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("overrides", [
    ["pruner=imp", "pruner.rounds=3", "prior.channels=24", "prior.depth=3", "image.size=64", "fit.steps=30"],
    ["prior.channels=8", "prior.depth=3", "image.size=48", "fit.steps=200", "fit.log_every=1"],
    ["task=finetune", "pruner=random", "pruner.rounds=1", "task.save_trained=true", "fit.epochs=1",
     "image.size=16", "prior.weights=null", "prior.channels=[32,32,16]", "prior.latent=32", "task.fraction=0.1"],
    ["task=classify", "pruner=imp", "pruner.rounds=2", "image.size=17", "prior.channels=24", "prior.depth=3",
     "fit.epochs=3"],
])
def test_disk_is_about_what_a_run_leaves(overrides, tmp_path, monkeypatch):
    """Within 1.5: PNGs are counted with their raw size, and of names and numbers the length is a guess."""
    monkeypatch.chdir(tmp_path)
    written = []

    class Weighed(Checkpoint):
        def _save(self, *args):
            super()._save(*args)
            written.append(self.path.stat().st_size)

    monkeypatch.setattr(lipfw.run, "Checkpoint", Weighed)
    overrides = [*overrides, "logger=none", "trainer=cpu", "trainer.progress=false"]
    cfg = composed(*overrides)
    result = lipfw.run.run(cfg)
    planned = work(*overrides).disk
    found = sum(f.stat().st_size for f in Path("runs", "default", result["run"]).rglob("*") if f.is_file())
    assert found / 1.5 < planned.done < found * 1.5
    assert 3 * max(written) / 1.5 < planned.checkpoints < 3 * max(written) * 1.5


# ---- the study --------------------------------------------------------------------------------------------------

def test_each_figure_of_the_study_is_made_of_runs_that_can_be_composed(here):
    found = {f.name: f for f in figures(lambda kind: kind)}
    assert list(found) == [*(f"Fig {i}" for i in range(1, 20)), *(f"Tab {i}" for i in range(1, 6))]
    runs = {name: sum(k.runs for k in f.works) for name, f in found.items()}
    assert runs["Fig 2"] == 4 * 10 and runs["Fig 9"] == 4 * 3 and runs["Fig 3"] == 10 * 4 * (3 + 3 + 1)
    assert runs["Tab 5"] == 3 * 10 * ((11 + 12 + 9) + (11 + 12) + 2 * (5 + 14))
    readme = Path(__file__).parents[1] / "README.md"
    assert not readme.is_file() or f"{sum(runs.values()):,} runs of" in readme.read_text()
    assert runs["Fig 6"] == 7 * 3 and runs["Fig 16"] == 3 * (3 + 3 + 3) and all(f.works for f in found.values())


def test_a_figure_at_the_published_scale(here):
    (figure,) = figures(Planner(False), ["Fig 9"])
    assert [w.cells for w in figure.works] == [3] * 4 and figure.works[0].steps == (3000,) * 17
    assert figure.works[0].parameters == 2_217_831 and figure.works[0].pictures == "512x512"
    assert sum(w.runs * w.flops_a_run for w in figure.works) == 12 * 17 * 3000 * figure.works[0].flops_a_step


def test_the_study_fits_80_columns(here, capsys, monkeypatch):
    module = sys.modules["lipfw.plan.__main__"]
    monkeypatch.setattr(module, "figures", lambda planner: figures(planner, ["Tab 3", "Fig 17"]))
    lines = show(capsys, "--study", "--device", "V100,RTX4090", err=None)
    assert any(line.startswith("29 runs, ") for line in lines)
    text = " ".join(lines)
    assert "nothing was measured" in text and "assumed: --utilisation" in text and "assumed: --floor-ms" in text


# ---- mistakes ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("argv, words", [
    (["-cn", "quickstrt"], "did you mean quickstart?"),
    (["--device", "H10"], "--device must be one of V100, A100, RTX4090, H100, H200"),
    (["--utilisation", "1.5"], "--utilisation must be a number in (0, 1], got 1.5"),
    (["--utilisation", "half"], "--utilisation must be a number"), (["--utilisation", "0"], "(0, 1]"),
    (["--floor-ms", "-1"], "--floor-ms"), (["--gpus", "0"], "--gpus"), (["--gpus", "1,many"], "'many'"),
    (["--gpu", "8"], "did you mean --gpus?"), (["--study", "seed=1"], "takes no overrides"),
    (["fit.stpes=3"], "did you mean fit.steps?"), (["+mine=3"], "mine is no option"),
    (["image=set5", "-m", "image.name=glob(*)"], "these overrides make no run"),
    (["image=set5", "image.name=babi"], "did you mean baby?"), (["image=celeba", "task=gan"], "LIPFW_DATA"),
    (["pruner=ticket", "pruner.path=nowhere"], "1 run can't be planned: no ticket at nowhere"),
])
def test_mistakes_are_one_line(here, capsys, argv, words):
    assert main([*argv, "--no-measure"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("lipfw: ") and err.count("\n") == 1 and words in err


def test_kinds_that_cannot_be_planned_are_left_out_and_named(here, capsys):
    assert main(["--no-measure", "image.size=16,32", *SMALL, "prior.depth=4", "seed=0..2"]) == 1
    out, err = capsys.readouterr()
    assert "3 runs, 3 rounds" in out
    assert err.startswith("lipfw: 3 runs can't be planned: ") and "too small" in err and err.count("\n") == 1


def test_what_is_on_no_machine_here_is_planned_all_the_same(here, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    lines = show(capsys, "trainer=gpu", "image.size=32", *SMALL, err=None)
    assert any(line.startswith("not measured: trainer=gpu") for line in lines)
    assert not any(line.startswith("this machine") for line in lines)


def test_the_help_fits_80_columns(here, capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    assert "--utilisation" in told and "--study" in told and max(map(len, told.splitlines())) <= 80
