"""Classical restorations: against direct calls of the libraries, in run folders, grids and reports."""
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import kornia
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from skimage import data, restoration
from skimage.metrics import peak_signal_noise_ratio

from lipfw import classical
from lipfw.configs import CONF
from lipfw.errors import InputError
from lipfw.fit.baseline import Baseline
from lipfw.folder import run_folder
from lipfw.image.picture import Picture
from lipfw.image.write import write_png
from lipfw.prior import none
from lipfw.pruner.none import Dense
from lipfw.report.__main__ import report
from lipfw.run import run
from lipfw.status.plan import plan
from lipfw.task.clean import Clean
from lipfw.task.denoise import Denoise
from lipfw.task.inpaint import Inpaint
from lipfw.task.superres import SuperRes

DENOISERS = ["nlm", "tv", "wavelet", "bilateral"]
SIGMA = 25 / 255


@pytest.fixture(scope="module")
def coffee() -> np.ndarray:
    """A part of a colour photograph, (60, 72, 3) in [0, 1]."""
    return data.coffee()[100:220:2, 200:344:2] / 255


def picture(x: np.ndarray, name="coffee", **options) -> Picture:
    return Picture(name, torch.from_numpy(np.atleast_3d(x)).permute(2, 0, 1)[None].float(), **options)


def noisy(x: np.ndarray, sigma=SIGMA, seed=0) -> np.ndarray:
    return np.clip(x + sigma * np.random.default_rng(seed).standard_normal(x.shape), 0, 1)


def baseline(*problems, **options) -> Baseline:
    return Baseline(problems, none.build([p.shape for p in problems]), **options)


def restored(problem, **options) -> np.ndarray:
    """(H, W, C)"""
    x, _ = baseline(problem, **options).restore(problem)
    assert x.dtype == torch.float32 and 0 <= x.min() and x.max() <= 1
    return x[0].permute(1, 2, 0).numpy()


# --- the methods

def test_non_local_means_and_wavelets_are_scikit_images(coffee):
    y = noisy(coffee)
    nlm = restoration.denoise_nl_means(y, 5, 6, 20 / 255, sigma=SIGMA, channel_axis=2)
    assert np.allclose(classical.nlm(y, SIGMA), nlm)
    bayes = restoration.denoise_wavelet(y, SIGMA, "sym8", wavelet_levels=2, convert2ycbcr=True, channel_axis=2)
    assert np.allclose(classical.wavelet(y, SIGMA), bayes)      # 60 pixels have room for two scales of 15
    grey = restoration.denoise_wavelet(y[:, :, 0], SIGMA, "sym8", wavelet_levels=2)
    assert np.allclose(classical.wavelet(y[:, :, :1], SIGMA)[:, :, 0], grey)


def test_total_variation_is_scikit_images_at_a_weight_near_the_best(coffee):
    y, found = noisy(coffee), {}
    for c in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.4):
        x = restoration.denoise_tv_chambolle(y, weight=c * SIGMA, channel_axis=-1)
        found[c] = x, peak_signal_noise_ratio(coffee, x)
    x = classical.tv(y, SIGMA)
    (chosen,) = [psnr for each, psnr in found.values() if np.allclose(each, x)]
    scores = [psnr for _, psnr in found.values()]
    assert chosen > max(scores) - 0.3 > min(scores) + 1         # which the clean picture alone could tell better


@pytest.mark.parametrize("channels", [1, 3])
def test_the_bilateral_filter_is_kornias(coffee, channels):
    y = noisy(coffee)[:, :, :channels]
    theirs = kornia.filters.bilateral_blur(torch.from_numpy(y).permute(2, 0, 1)[None], 11, 2 * SIGMA * channels ** 0.5,
                                           (1.8, 1.8), color_distance_type="l2")
    assert np.allclose(classical.bilateral(y, SIGMA), theirs[0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize("method", DENOISERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_takes_noise_away_at_a_level_that_it_estimates_or_is_told(coffee, method, channels):
    problem = Denoise(25)(picture(coffee[:, :, :channels]))
    clean, y = (t[0].permute(1, 2, 0).numpy() for t in (problem.image, problem.measurement))
    before = peak_signal_noise_ratio(clean, y, data_range=1)
    told, by_estimate = restored(problem, method=method, sigma=25), restored(problem, method=method)
    for x in (told, by_estimate):
        assert peak_signal_noise_ratio(clean, x, data_range=1) > before + 2.5
    assert not np.array_equal(told, by_estimate)
    blind = replace(problem, image=None)
    assert np.array_equal(restored(blind, method=method), by_estimate)      # the clean picture is not looked at


@pytest.mark.parametrize("sigma", [5, 25, 50])
def test_the_noise_level_is_estimated(sigma):
    y = 0.5 + sigma / 255 * np.random.default_rng(1).standard_normal((80, 90, 3))
    assert classical.noise_level(y) * 255 == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("method", DENOISERS)
def test_a_picture_without_noise_stays_as_it_is(method):
    module = baseline(Clean()(picture(np.full((20, 24, 3), 0.4))), method=method)
    x, level = module.restore(module.problems[0])
    assert level == 0 and torch.equal(x, module.problems[0].measurement)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_bicubic_is_pillows_and_not_quantised(coffee, factor):
    problem = SuperRes(factor)(picture(coffee))
    x = restored(problem, method="bicubic")
    for c in range(3):
        small = Image.fromarray(problem.measurement[0, c].numpy())
        assert small.mode == "F"
        large = np.asarray(small.resize((72, 60), Image.Resampling.BICUBIC))
        assert np.allclose(x[:, :, c], large.clip(0, 1), atol=1e-6)
    assert len(np.unique(x)) > 2000
    degraded = SuperRes(factor)(picture(coffee, degraded=True))
    assert restored(degraded, method="bicubic").shape == (60 * factor, 72 * factor, 3)


@pytest.mark.parametrize("per_channel", [False, True])
def test_biharmonic_inpainting_is_scikit_images_and_leaves_what_is_known(coffee, per_channel):
    problem = Inpaint(0.5, per_channel=per_channel)(picture(coffee))
    known = np.broadcast_to(problem.operator.known[0].permute(1, 2, 0).numpy() > 0, coffee.shape)
    x, clean = restored(problem, method="biharmonic"), problem.image[0].permute(1, 2, 0).numpy()
    assert np.array_equal(x[known], clean[known])
    for c in range(3):
        alone = restoration.inpaint_biharmonic(np.where(known, clean, 0)[:, :, c].astype(float), ~known[:, :, c])
        assert np.allclose(x[:, :, c], alone.clip(0, 1), atol=1e-5)
    assert peak_signal_noise_ratio(clean, x, data_range=1) > 24
    assert restored(Inpaint(0)(picture(coffee)), method="biharmonic").tolist() == coffee.astype("f").tolist()


def test_a_channel_of_which_nothing_is_known_is_refused(coffee):
    known = np.ones((60, 72, 3), bool)
    known[:, :, 1] = False
    with pytest.raises(InputError, match="hides a whole colour channel.*lower task.missing"):
        classical.biharmonic(coffee, known)


def test_bm3d_is_the_users_own(coffee, monkeypatch):
    problem, calls = Denoise(25)(picture(coffee)), []
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(InputError, match="licence allows non-commercial use only.*pip install bm3d"):
        baseline(problem, method="bm3d")

    def grey(z, sigma_psd):
        calls.append((z.shape, sigma_psd))
        return z / 2

    monkeypatch.setitem(sys.modules, "bm3d", SimpleNamespace(bm3d=grey, bm3d_rgb=grey))
    assert np.allclose(restored(problem, method="bm3d", sigma=25), problem.measurement[0].permute(1, 2, 0) / 2)
    restored(Denoise(25)(picture(coffee[:, :, 0])), method="bm3d", sigma=25)
    assert calls == [((60, 72, 3), SIGMA), ((60, 72), SIGMA)]


# --- the module

def test_several_pictures_of_other_sizes_are_restored_each_by_itself(coffee, train):
    problems = [Denoise(25)(picture(coffee, "a")), Denoise(25)(picture(coffee[:40, :, :1], "b", degraded=True))]
    module = baseline(*problems, method="wavelet")
    train(module, Dense())
    for p, x in zip(problems, module.pictures("picked"), strict=True):
        assert np.array_equal(x[0].permute(1, 2, 0).numpy(), restored(p, method="wavelet"))
    s = module.summary()
    assert s["psnr_peak"] != s["psnr_peak"]                 # of b no clean picture is known
    a = s["images"]["a"]
    assert a["psnr_peak"] == a["psnr_picked"] == a["psnr_final"] > 22 and s["step_picked"] == s["step_last"] == 1
    clean, x = problems[0].image.numpy(), module.pictures("final")[0].numpy()
    assert a["psnr_final"] == pytest.approx(peak_signal_noise_ratio(clean, x, data_range=1), abs=1e-4)
    assert a["mse_final"] == pytest.approx(4 * np.mean((clean - x) ** 2), rel=1e-4)
    again = baseline(*problems, method="wavelet")           # what a checkpoint holds is all that there is
    again.load_state_dict(module.state_dict())
    assert again.summary()["images"]["a"] == a and not list(module.parameters())


@pytest.mark.parametrize("task, method", [(Denoise(25), "nlm"), (SuperRes(4), "bicubic"), (Inpaint(0.5), "biharmonic")])
def test_the_time_is_estimated_on_a_piece(coffee, task, method):
    (seconds,), note = baseline(task(picture(np.tile(coffee, (2, 2, 1)))), method=method).estimate([1.0])
    assert 0 < seconds < 5 and note is None


def test_the_time_of_a_hole_larger_than_the_piece_is_estimated(coffee):
    known = np.ones((120, 144), bool)
    known[:70, :70] = False
    problem = Inpaint(0.5)(picture(np.tile(coffee, (2, 2, 1))))
    problem.operator.known = torch.from_numpy(known)[None, None].float()
    assert baseline(problem, method="biharmonic").estimate([1.0])[0][0] > 0


# --- runs

QUIET = ["logger=none", "trainer.progress=false", "trainer.threads=1", "image.size=32"]


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*QUIET, *overrides])


@pytest.mark.parametrize("overrides, told", [
    (["fit.method=nln"], "fit.method must be one of nlm, .*, got 'nln'; did you mean nlm"),
    (["fit.method=bicubic"], "can't restore what this task .*; use fit.method=nlm or tv or wavelet or bilateral"),
    (["task=superres"], "can't restore what this task .*; use fit.method=bicubic"),
    (["task=inpaint"], "can't restore what this task .*; use fit.method=biharmonic"),
    (["task=cs"], "no baseline can: they are for task=denoise, clean, jpeg, superres and inpaint"),
    (["task=gan", "~image.size"], "task=gan trains a generator, which Baseline does not"),
    (["fit.sigma=0"], r"fit.sigma must be a number in \(0, 255\], got 0"),
    (["task=superres", "fit.method=bicubic", "fit.sigma=25"], "fit.sigma=25 is a noise level, which fit.method="),
    (["prior=skip", "prior.depth=2"], "takes prior=none, which it has by itself; leave prior= out"),
    (["pruner=imp"], "fits no network, of which nothing can be pruned; use pruner=none"),
    (["trainer.precision=bf16"], "is for networks, and fit=baseline has none"),
    (["fit=restoration", "prior=none"], "prior=none has nothing to fit and is for fit=baseline"),
])
def test_what_does_not_go_together_is_refused_before_anything_is_written(tmp_path, monkeypatch, overrides, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=told) as error:
        run(composed(*([] if "fit=restoration" in overrides else ["fit=baseline"]), *overrides))
    assert "\n" not in str(error.value) and not Path("runs").exists()


def test_a_run_has_the_folder_and_the_numbers_of_a_fit(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cfg = composed("fit=baseline", "fit.method=tv")
    result = run(cfg)
    folder = run_folder(cfg)
    assert folder.name.startswith("denoise-astronaut-tv-none-s0-") and result["device"] == "cpu"
    for name in ("restored.png", "compare.png", "restored/round_00.png", "config.yaml", "rounds.jsonl"):
        assert (folder / name).is_file()
    assert not (folder / "tickets").exists() and not list(folder.glob("*.ckpt"))
    (only,) = result["rounds"]
    assert only["psnr_picked"] > result["degraded"]["psnr"] and (only["params_left"], only["sparsity"]) == (0, 0.0)
    assert 15 < only["sigma"] < 35
    (step,) = map(json.loads, (folder / "steps.jsonl").read_text().splitlines())
    assert step["psnr"] == pytest.approx(only["psnr_final"], abs=1e-4)
    assert run(cfg) == result                                               # done, and so found
    p = plan(result["config"], Path())
    assert (p.rounds, p.steps) == (1, 1)


def test_a_run_of_a_degraded_picture_of_ones_own(tmp_path, monkeypatch, coffee):
    monkeypatch.chdir(tmp_path)
    write_png(tmp_path / "noisy.png", picture(noisy(coffee)).pixels)
    result = run(composed("fit=baseline", "image=file", "image.path=noisy.png", "image.degraded=true",
                          "image.size=null"))
    assert result["rounds"][0]["psnr_picked"] is None and result["rounds"][0]["sigma"] > 10
    assert (run_folder(composed("fit=baseline", "image=file", "image.path=noisy.png", "image.degraded=true",
                                "image.size=null")) / "restored.png").is_file()


def test_a_picture_that_comes_back_without_any_error_has_no_psnr(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = composed("fit=baseline", "task=inpaint", "task.missing=0", "fit.method=biharmonic")
    result = run(cfg)
    (only,) = result["rounds"]
    assert (only["psnr_picked"], only["mse_picked"], only["loss"]) == (None, 0, 0) and result["oracle_round"] is None
    (step,) = map(json.loads, (run_folder(cfg) / "steps.jsonl").read_text().splitlines())
    assert step["psnr"] is None and step["ssim"] == 1


def test_methods_and_a_prior_are_one_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    psnr = {}
    for method in ("nlm", "wavelet"):
        psnr[method] = run(composed("fit=baseline", f"fit.method={method}"))["rounds"][0]["psnr_picked"]
    fit = run(composed("prior.channels=4", "prior.depth=2", "fit.steps=3", "fit.window=2"))
    psnr["skip"] = fit["rounds"][0]["psnr_picked"]
    assert report([Path("runs/default")], Path("out")) == 0
    out = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert out[0] == "denoise-astronaut: restorations (*: the best)"
    rows = {line.split()[0]: line.split() for line in out[2:]}
    assert list(rows) == ["degraded", "nlm", "skip", "wavelet"] and rows["nlm"][2] == "0"
    best = max(psnr, key=psnr.get)
    for name, value in psnr.items():
        assert rows[name][5] == "*" * (name == best) + f"{value:.2f}"
    assert f"{fit['degraded']['psnr']:.2f}" in rows["degraded"]
