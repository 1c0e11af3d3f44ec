"""ISNAS-DIP's search: its metrics against numpy and scipy, the draw, the choice, and runs that search."""
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from scipy import stats
from skimage import data
from skimage.metrics import peak_signal_noise_ratio

import lipfw
from lipfw import spectrum
from lipfw.cli import CONF
from lipfw.errors import InputError
from lipfw.files import read_jsonl
from lipfw.fit.restoration import Restoration
from lipfw.image.picture import Picture
from lipfw.image.read import read
from lipfw.image.write import write_png
from lipfw.plan.kinds import Kinds
from lipfw.plan.work import Planner
from lipfw.prior import isnas, nas
from lipfw.prior.isnas import Search, mean, weights
from lipfw.search import agreement
from lipfw.task.denoise import Denoise
from lipfw.task.inpaint import Inpaint
from lipfw.task.superres import SuperRes
from lipfw.ticket import Ticket

TINY = ["trainer=smoke", "trainer.progress=false", "logger=none", "prior=isnas", "fit.steps=3", "fit.log_every=1",
        "prior.channels=4", "prior.candidates=4", "prior.finalists=3", "prior.finalist_steps=2"]
PRIOR = dict(candidates=5, finalists=2, finalist_steps=3, channels=4)


def colour(height=48, width=40):
    return data.astronaut()[100:100 + height, 200:200 + width].transpose(2, 0, 1) / 255.0


def noise(height=48, width=40, channels=3):
    return np.random.default_rng(0).random((channels, height, width))


# ---- metrics ----------------------------------------------------------------------------------------------------

def slow_psd(x):
    """The Fourier sums written out, for frequencies from -n/2 on."""
    def waves(n):
        k = np.arange(n) - n // 2
        return np.exp(-2j * np.pi * np.outer(k, np.arange(n)) / n)

    c, h, w = x.shape
    return np.abs(waves(h) @ x @ waves(w).T / (h * w)) ** 2


def in_circle(h, w, diameter):
    found = np.zeros((h, w), bool)
    for i in range(h):
        for j in range(w):
            found[i, j] = (i / h - 0.5) ** 2 + (j / w - 0.5) ** 2 < (diameter / 2) ** 2
    return found


@pytest.mark.parametrize("size", [(48, 40), (33, 47)])
def test_the_metrics_are_their_definitions(size):
    a, b = colour(*size), noise(*size)
    pa, pb = slow_psd(a), slow_psd(b)
    np.testing.assert_allclose(spectrum.psd(a), pa, atol=1e-14)
    db = 10 * (np.log10(pa) - np.log10(pb))
    ring = in_circle(*size, 0.2) ^ in_circle(*size, 0.1)
    metric = {name: f(a, b, np.random.default_rng(0)) for name, f in spectrum.METRICS.items()}
    assert metric["psd_db_mse"] == pytest.approx((db ** 2).mean())
    assert metric["psd_db_strip_mse"] == pytest.approx((db[:, ring] ** 2).mean())
    heights = [np.histogram(p[:, ring].ravel(), 100, density=True)[0] for p in (pa, pb)]
    assert metric["psd_strip_hist_emd"] == pytest.approx(stats.wasserstein_distance(*heights))
    held = [pb.mean(0)[in_circle(*size, d)].sum() / pb.mean(0).sum() for d in np.sqrt(2) * np.arange(1, 100) / 99]
    first = next(i for i, e in enumerate(held) if e >= 0.99)
    between = (0.99 - held[first - 1]) / (held[first] - held[first - 1])
    assert metric["psd_99_per_bw"] == pytest.approx((first + between) / 99)
    assert metric["random_mse"] == pytest.approx(2, rel=0.1)


def test_the_metrics_tell_pictures_apart():
    a, rng = colour(), np.random.default_rng(0)
    for name in ("psd_db_mse", "psd_db_strip_mse", "psd_strip_hist_emd"):
        assert spectrum.METRICS[name](a, a, rng) == 0 < spectrum.METRICS[name](a, noise(), rng)
    for name in ("psd_db_mse", "psd_db_strip_mse"):
        assert spectrum.METRICS[name](a, a / 10, rng) == pytest.approx(400)         # 20 dB
        flat = spectrum.METRICS[name](a, np.full_like(a, 0.5), rng)
        assert np.isfinite(flat) and flat > 1000
    smooth, rough = (spectrum.psd_99_per_bw(a, x, rng) for x in (a, noise() - 0.5))
    assert smooth < 0.3 < 0.6 < rough <= 1


# ---- the draw and the choice ------------------------------------------------------------------------------------

def search(seed=0, candidates=5, finalists=2, metric="psd_db_strip_mse"):
    return isnas.build([(3, 48, 40)], **{**PRIOR, "candidates": candidates, "finalists": finalists, "metric": metric},
                       seed=seed).search


def test_cells_and_bits_are_drawn_as_published():
    s = search(candidates=9000)
    drawn = [s.candidate(i) for i in range(6000)]
    cells = Counter(c["cell"] for c in drawn)
    assert set(cells) == set(range(1, 300))
    assert stats.chisquare(list(cells.values())).pvalue > 1e-3
    bits = np.array([[[int(b) for b in row] for row in c["skips"]] for c in drawn])
    assert bits.shape == (6000, 5, 5) and stats.kstest(bits.mean(0).ravel(), stats.norm(0.5, 0.5 / 6000 ** 0.5).cdf
                                                       ).pvalue > 1e-3
    assert abs(np.corrcoef(bits.reshape(6000, 25).T) - np.eye(25)).max() < 0.06


def test_the_draw_follows_the_seed_and_not_the_number_of_candidates():
    assert [search().candidate(i) for i in range(5)] == [search(candidates=50).candidate(i) for i in range(5)]
    told = [json.dumps([{**search(seed).candidate(i), "seed": 0} for i in range(5)]) for seed in (0, 1, 2)]
    assert len(set(told)) == 3


@pytest.mark.parametrize("task", [Denoise(25, 0), Inpaint(0.5), SuperRes(2, border=0)], ids=["noise", "holes", "small"])
@pytest.mark.parametrize("metric", ["psd_db_strip_mse", "psd_99_per_bw"])
def test_a_candidate_is_measured_as_it_would_start(task, metric):
    """What is small is compared small; what has holes, as published, with what has none."""
    problem = task(Picture("a", torch.from_numpy(colour()[None]).float()))
    s = search(seed=3, metric=metric)
    network = nas.build([(3, 48, 40)], **s.candidate(1))
    assert network.code().shape == (1, 3, 64, 64) and network.architecture["unused"] is False
    with torch.no_grad():
        made = network()
        made = problem.operator(made) if made.shape != problem.measurement.shape else made
    a, b = (x[0].numpy().astype("float64") for x in (problem.measurement, made))
    assert s.measure(1, [problem]) == pytest.approx(spectrum.METRICS[metric](a, b, None))
    other = Denoise(25, 0)(Picture("b", torch.rand(1, 3, 48, 40)))
    assert s.measure(1, [problem, other]) == pytest.approx((s.measure(1, [problem]) + _second(s, problem, other)) / 2)


def _second(s, first, second):
    prior = nas.build([first.shape, second.shape], **s.candidate(1))
    with torch.no_grad():
        made = prior(1)
    return spectrum.METRICS[s.metric](*(x[0].numpy().astype("float64") for x in (second.measurement, made)), None)


def test_the_mean_of_finalists_is_weighted_by_their_metric():
    outputs = [torch.rand(1, 3, 6, 5) for _ in range(4)]
    metrics = [3.0, 4.0, 9.0, 7.5]
    w = (9 - np.array(metrics)) / 6
    by_hand = sum(a * o.numpy() for a, o in zip(w, outputs, strict=True)) / w.sum()
    np.testing.assert_allclose(mean(outputs, metrics).numpy(), by_hand, rtol=1e-5)
    assert weights([2.0, 2.0]) == [1, 1]
    expected = mean(outputs, metrics).numpy()
    found = agreement([[o] for o in outputs], metrics, False)
    assert found == pytest.approx([peak_signal_noise_ratio(expected, o.numpy(), data_range=1) for o in outputs])
    grey = np.array([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1) * 219 / 255
    found = agreement([[o] for o in outputs], metrics, True)
    assert found == pytest.approx([peak_signal_noise_ratio((expected * grey).sum(1), (o.numpy() * grey).sum(1),
                                                           data_range=1) for o in outputs], abs=1e-3)
    twice = agreement([[o, 1 - o] for o in outputs], metrics, False)
    assert twice == pytest.approx(agreement([[o] for o in outputs], metrics, False), abs=1e-3)


# ---- runs -------------------------------------------------------------------------------------------------------

def timeless(told):
    """A record without what took how long."""
    if isinstance(told, dict):
        return {k: timeless(v) for k, v in told.items() if "seconds" not in k}
    return [timeless(v) for v in told] if isinstance(told, list) else told


def as_plain_nas(chosen):
    own = ("cell", "skips", "code_channels", "unused", "jitter")
    return [*(t for t in TINY if "prior" not in t), "prior=nas", f"prior.channels={chosen['channels']}",
            *(f"prior.{k}={json.dumps(chosen[k])}" for k in own)]


def test_the_finalist_closest_to_the_mean_is_fitted_afresh(go, capsys):
    folder, result = go("trainer.progress=auto", "pruner=imp", "pruner.rounds=1")
    said = capsys.readouterr().out
    record = json.loads((folder / "search.json").read_text())
    assert result["search"] == record and folder.name.startswith("denoise-astronaut-isnas-imp-")
    # ranked
    lines = read_jsonl(folder / "search/candidates.jsonl")
    assert [line["candidate"] for line in lines] == list(range(4))
    best = sorted(lines, key=lambda line: line["metric"])[:3]
    assert [f["candidate"] for f in record["finalists"]] == [line["candidate"] for line in best]
    # fitted
    outputs = []
    for f in record["finalists"]:
        finalist = json.loads((folder / "search" / f["run"] / "result.json").read_text())
        (only,) = finalist["rounds"]
        config = finalist["config"]
        assert only["step_last"] == 2 == only["step_picked"] and config["fit"]["smoothing"] == 0.99
        assert (config["prior"]["cell"], config["prior"]["skips"]) == (f["cell"], f["skips"])
        outputs.append(read(folder / "search" / f["run"] / "restored.png").pixels.numpy())
    # chosen
    w = weights([f["metric"] for f in record["finalists"]])
    average = sum(a * o for a, o in zip(w, outputs, strict=True)) / sum(w)
    psnr = [peak_signal_noise_ratio(average, o, data_range=1) for o in outputs]
    assert [f["psnr"] for f in record["finalists"]] == pytest.approx(psnr, rel=1e-4)
    won = record["finalists"][int(np.argmax(psnr))]
    assert record["candidate"] == won["candidate"] and record["chosen"]["skips"] == won["skips"]
    # and fitted afresh: the same bits as that network's own run
    plain_folder, plain = go("pruner=imp", "pruner.rounds=1", tiny=as_plain_nas(record["chosen"]))
    assert timeless(plain["rounds"]) == timeless(result["rounds"]) and "search" not in plain
    assert (plain_folder / "restored.png").read_bytes() == (folder / "restored.png").read_bytes()
    one, other = (Ticket.load(f / "tickets/round_01.safetensors") for f in (folder, plain_folder))
    assert one.about["initial"] == other.about["initial"] and one.about["architecture"] == other.about["architecture"]
    assert all(torch.equal(one.mask[n], other.mask[n]) for n in one.mask)
    assert re.search(r"^searching: 4 candidates by psd_db_strip_mse, about .*, then 3 fits of 2 steps$", said, re.M)
    assert len(re.findall(r"^finalist \d of 3: cell \d+, skips \[", said, re.M)) == 3
    assert re.search(rf"^chosen: candidate {won['candidate']}, cell {won['cell']}, .* the search took ", said, re.M)


class Killed(BaseException):
    """What no code expects."""


def test_a_search_that_is_killed_goes_on_to_the_same_choice(go, monkeypatch):
    """While ranking, in the second finalist's fit, in the run's own."""
    options = ["trainer.checkpoint_seconds=0", "fit.steps_per_batch=1"]
    folder, whole = go(*options)
    expected = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.png")}
    record = json.loads((folder / "search.json").read_text())
    counts, deadly = Counter(), {"measure": {2}, "fit": {3, 7}}

    def counted(name, method):
        def call(*args, **kwargs):
            if counts[name] in deadly[name]:
                deadly[name].remove(counts[name])
                raise Killed
            counts[name] += 1
            return method(*args, **kwargs)
        return call

    monkeypatch.setattr(Search, "measure", counted("measure", Search.measure))
    monkeypatch.setattr(Restoration, "fit_step", counted("fit", Restoration.fit_step))
    for _ in range(3):
        with pytest.raises(Killed):
            go("name=again", *options)
    again, result = go("name=again", *options)
    assert counts == {"measure": 4, "fit": 3 * 2 + 3}       # nothing twice
    assert timeless(json.loads((again / "search.json").read_text())) == timeless(record)
    assert timeless(result["rounds"]) == timeless(whole["rounds"])
    assert {p.relative_to(again): p.read_bytes() for p in again.rglob("*.png")} == expected
    assert not list(again.rglob("*.ckpt")) and not (again / "failed.json").exists()


def test_of_one_finalist_nothing_is_fitted_twice(go, monkeypatch):
    steps = []
    monkeypatch.setattr(Restoration, "fit_step", lambda self, real=Restoration.fit_step: steps.append(1) or real(self))
    folder, result = go("prior.finalists=1", "prior.metric=psd_99_per_bw")
    lines = read_jsonl(folder / "search/candidates.jsonl")
    assert len(steps) == 3 and result["search"]["candidate"] == min(lines, key=lambda x: x["metric"])["candidate"]
    assert len(list((folder / "search").iterdir())) == 1


def test_several_pictures_have_one_network(go):
    Path("photos").mkdir()
    for i in range(2):
        write_png(Path("photos") / f"{i}.png", torch.from_numpy(colour(32 + 8 * i, 40)[None]).float())
    folder, result = go("task=superres", "task.factor=2", "image=folder", "image.path=photos", "image.size=null",
                        "prior.finalists=2", "prior.candidates=2")
    assert len(result["rounds"][0]["images"]) == 2 and len(result["search"]["finalists"]) == 2
    (first, _) = result["search"]["finalists"]
    assert len(list((folder / "search" / first["run"]).glob("restored-*.png"))) == 2
    assert result["search"]["chosen"]["cell"] == first["cell"]      # of two the better one is their mean


def test_seeds_side_by_side_each_search_for_themselves(go):
    few = ["prior.finalists=2", "prior.candidates=2"]
    results = go("fit.batch_seeds=2", *few)[1]
    alone = go("name=alone", "seed=1", *few)[1]
    for part in ("search", "rounds"):
        assert timeless(results[1][part]) == timeless(alone[part])
    assert results[0]["search"]["chosen"] != results[1]["search"]["chosen"]


@pytest.mark.parametrize("overrides, message", [
    (["prior.candidates=0"], "prior.candidates must be a whole number of at least 1, got 0"),
    (["prior.finalists=6"], "prior.finalists=6 are to be taken of prior.candidates=4; use fewer"),
    (["prior.finalists=0"], "prior.finalists must be a whole number of at least 1"),
    (["prior.finalist_steps=0"], "prior.finalist_steps must be a whole number of at least 1"),
    (["prior.metric=psd_db"], "prior.metric must be one of psd_db_mse, .*, got 'psd_db'; did you mean psd_db_mse"),
    (["prior.channels=6"], "prior.channels must be a multiple of 4"),
    (["prior.seed=-1"], "prior.seed must be a whole number"),
    (["task=superres"], "prior.metric=psd_db_strip_mse looks at low frequencies, of which a measurement of 8x8 pixels"),
    (["task=cs", "prior=isnas", "image.size=32", "fit.objective=ls", "task.measurements=50", "task.corrupted=0"],
     "prior=isnas compares spectra of pictures, and this task measures none"),
])
def test_bad_input_is_told_before_anything_is_written(go, overrides, message):
    with pytest.raises(InputError, match=message) as error:
        go(*overrides)
    assert "\n" not in str(error.value) and not Path("runs").exists()


def test_a_generator_is_not_searched_for(go):
    with pytest.raises(InputError, match="training needs a generator with a critic, and this prior is an untrained"):
        go(tiny=["task=finetune", "prior=isnas", "logger=none", "trainer.progress=false"])
    assert not Path("runs").exists()


def test_finalists_are_fitted_as_the_run_is(go):
    few = ["fit=sgld", "fit.thin=1", "prior.finalists=2", "prior.candidates=2"]
    with pytest.raises(InputError, match="fit, of prior.finalist_steps=2: .* leave no sample in fit.steps=2"):
        go(*few)
    assert not Path("runs").exists()
    folder, result = go(*few, "prior.finalist_steps=5")
    finalist = json.loads((folder / "search" / result["search"]["finalists"][0]["run"] / "result.json").read_text())
    assert finalist["config"]["fit"]["_target_"] == "lipfw.fit.sgld.Langevin"
    assert finalist["rounds"][0]["step_last"] == 5


def test_a_ticket_belongs_to_the_network_it_was_found_in(go):
    folder, result = go("pruner=imp", "pruner.rounds=1", "prior.finalists=1", "prior.candidates=2")
    with pytest.raises(InputError, match="prior=isnas chooses a network of its own, and tickets belong to the one"):
        go("pruner=ticket", f"pruner.path={folder}", "name=other")
    _, replayed = go("pruner=ticket", f"pruner.path={folder}", tiny=as_plain_nas(result["search"]["chosen"]))
    assert [r["loss"] for r in replayed["rounds"]] == [r["loss"] for r in result["rounds"]]


def test_from_python_the_search_is_refused():
    with pytest.raises(InputError, match="the network of isnas is searched for in a run's folder"):
        lipfw.restore(colour().transpose(1, 2, 0), prior=isnas.build, steps=2, **PRIOR)


def test_a_plan_counts_the_finalists():
    kinds = Kinds()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for finalists in (3, 1):
            kinds.add(compose("config", [*TINY, f"prior.finalists={finalists}"]))
    three, one = map(Planner(False), kinds)
    assert (three.steps, three.steps_a_run, one.steps_a_run) == ((3,), 3 + 3 * 2, 3)
    assert three.flops_a_run == pytest.approx(3 * one.flops_a_run) and three.disk.done > 2 * one.disk.done
    assert any("6 steps of finalists" in r for r in three.remarks)
