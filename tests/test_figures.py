"""Figures of studies: what is drawn is read back from the figure and compared with the numbers it was made of."""
import itertools
import subprocess
import sys
from colorsys import rgb_to_hls
from dataclasses import replace
from pathlib import Path

import hand_made
import numpy as np
import pytest
import torch
import yaml
from matplotlib import colors
from matplotlib.collections import PolyCollection

from lipfw.errors import InputError
from lipfw.fit.stopping import last_before_rises
from lipfw.image.write import write_png
from lipfw.measures import layer_sparsity
from lipfw.report import figure
from lipfw.report.figure import learning, pictures, points, raster, spectrum, style, table
from lipfw.report.study import Series, Study
from lipfw.report.ticket import layer_sparsity as sparsity_in_file
from lipfw.ticket import Ticket

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    """The study with all files of its runs."""
    return hand_made.study(tmp_path_factory.mktemp("study"), files=True)


@pytest.fixture
def study(tmp_path):
    return hand_made.study(tmp_path)


def lines(axes):
    return {line.get_gid()[5:]: line for line in axes.lines if (line.get_gid() or "").startswith("line-")}


def legend(made):
    return [t.get_text() for box in made.legends for t in box.get_texts()]


SPEC = {"draw": "curves", "series": ["imp", "random", "snip"], "points": ["decoder"], "level": "dense",
        "panels": "image.name"}


def test_curves_draw_the_means_and_the_band_of_their_deviation(study):
    made = figure.draw(study, SPEC)
    assert [a.get_title(loc="left") for a in made.axes] == ["bird", "woman"]
    for axes, picture in zip(made.axes, ("bird", "woman"), strict=True):
        each = np.array([[hand_made.psnr("imp", picture, s, r) for r in range(4)] for s in (0, 1)])
        x, y = lines(axes)["imp"].get_data()
        assert x == pytest.approx([100_000, 64_000, 40_960, 10_740])
        assert y == pytest.approx(each.mean(0))
        band = next(c for c in axes.collections if isinstance(c, PolyCollection))
        low, high = (each.mean(0) + sign * each.std(0, ddof=1) for sign in (-1, 1))
        corners = {(round(a), round(b, 6)) for a, b in band.get_paths()[0].vertices}
        assert {(round(a), round(b, 6)) for a, b in [*zip(x, low, strict=True), *zip(x, high, strict=True)]} <= corners
        assert axes.get_xscale() == "log" and axes.xaxis.get_inverted()
        across = [line for line in axes.lines if len(set(line.get_ydata())) == 1 and line.get_linestyle() == "--"]
        assert across[0].get_ydata()[0] == pytest.approx(each[:, 0].mean())
        dots = [c.lines[0] for c in axes.containers]
        assert dots[0].get_xdata() == [5000]
        assert dots[0].get_ydata()[0] == pytest.approx(np.mean([hand_made.psnr("decoder", picture, s, 0)
                                                                for s in (0, 1)]))


def test_what_is_missing_is_named_and_not_left_out(study):
    texts = legend(figure.draw(study, SPEC))
    assert "SNIP (not run)" in texts and "random (3 of 4 runs)" in texts and "LIP" in texts
    assert "± deviation over seeds" in texts


def test_pictures_are_averaged_over_within_a_seed_that_has_all_of_them(study):
    c = points.curve(study.series["imp"].points, "psnr_peak")
    each = [[np.mean([hand_made.psnr("imp", p, s, r) for p in ("bird", "woman")]) for r in range(4)] for s in (0, 1)]
    assert c.mean == pytest.approx(np.mean(each, 0)) and c.sd == pytest.approx(np.std(each, 0, ddof=1))
    c = points.curve(study.series["random"].points, "psnr_peak")        # seed 1 lacks woman
    assert c.n.tolist() == [1] * 4 and np.isnan(c.sd).all()
    assert c.mean == pytest.approx([np.mean([hand_made.psnr("random", p, 0, r) for p in ("bird", "woman")])
                                    for r in range(4)])


def test_curves_over_sparsity(study):
    made = figure.draw(study, {"draw": "curves", "x": "sparsity", "series": "imp", "where": {"image.name": "bird"}},
                       narrow=True)
    (axes,) = made.axes
    x, y = lines(axes)["imp"].get_data()
    assert x == pytest.approx(100 * np.array(hand_made.LADDER)) and axes.get_xscale() == "linear"
    assert y[0] == pytest.approx(np.mean([hand_made.psnr("imp", "bird", s, 0) for s in (0, 1)]))
    assert made.get_figwidth() == style.NARROW


@pytest.mark.parametrize("spec, told", [
    ({"draw": "curve"}, "did you mean curves"),
    ({"draw": "curves", "series": ["lip"]}, "'lip'; there are imp, random"),
    ({"draw": "curves", "colour": "red"}, "no 'colour'"),
    ({"draw": "curves", "x": "rounds"}, "x must be one of"),
    ({"draw": "curves", "x": "sparsity", "points": "decoder"}, "x: params_left"),
    ({"draw": "curves", "where": {"image.nam": "bird"}}, "image.name"),
    ({"draw": "learning", "y": "psnr_peak"}, "y must be one of"),
    ({"draw": "layers", "sparsities": [20]}, "a number in [0, 1), got 20"),
    ({"draw": "pictures", "columns": "rows"}, "columns must be"),
    ({"draw": "spectrum", "against": "noise"}, "against must be"),
    ({"draw": "curves", "y": "psnr_best"}, "y must be one of"),
    ({"draw": "rounds", "y": ["psnr_peak"]}, "y must be one of"),
    ({"draw": "table", "metric": "psnr_best"}, "metric must be one of"),
    ({"draw": "curves", "series": 3}, "series must be a name or a list of names, got 3"),
    ({"draw": "pictures", "panels": "image.nam"}, "no cell has a value of image.nam; did you mean image.name?"),
    ({"draw": "table", "rows": "image.nam", "columns": "series", "sparsity": 0.36}, "did you mean image.name?"),
])
def test_a_spec_that_is_not_understood_is_refused_in_a_line(study, spec, told):
    with pytest.raises(InputError) as e:
        table.build(study, spec) if spec["draw"] == "table" else figure.draw(study, spec)
    assert told in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("figures, told", [
    (["curves"], "figures[0]: it must be a mapping with draw, got 'curves'"),
    ({"draw": "curves"}, "figures must be a list"), (3, "figures must be a list, got 3"),
    ([{"draw": "curves"}], "figures[0]: draw=curves: the study has no series"),
])
def test_figures_that_are_no_list_of_mappings_are_refused_in_a_line(study, tmp_path, figures, told):
    with pytest.raises(InputError) as e:
        figure.draw_all(replace(study, series={}, spec={"figures": figures}), tmp_path)
    assert told in str(e.value) and "\n" not in str(e.value)


def test_a_label_is_no_formula(study):
    made = figure.draw(replace(study, series={k: replace(s, label=r"$\frac$ & 5 $")
                                              for k, s in study.series.items()}), {"draw": "curves"})
    assert r"$\frac$ &amp; 5 $" in figure._svg(made)


def test_learning_curves_are_those_of_the_steps_that_all_runs_recorded(on_disk):
    made = figure.draw(on_disk, {"draw": "learning", "y": "loss", "series": ["imp", "dense", "snip"], "sparsity": 0.6})
    (axes,) = made.axes
    steps, loss = lines(axes)["imp"].get_data()
    assert steps.tolist() == [10, 20]           # seed 1 did not record step 30
    assert loss == pytest.approx([np.mean([1 / (s + 2 + seed) for seed in (0, 1)]) for s in (10, 20)])
    assert lines(axes)["dense"].get_ydata()[0] == pytest.approx(np.mean([1 / 10, 1 / 11]))
    assert "SNIP (not run)" in legend(made)
    there = points.nearest(on_disk.series["imp"].points, 0.6)
    assert {p.round for p in there} == {2} and not points.nearest(there, 0.7)
    _, mean, sd = learning.learning_curve(there, "psnr")
    each = np.array([[s + 2 + seed for s in (10, 20)] for seed in (0, 1, 0, 1)])
    assert mean == pytest.approx(each.mean(0)) and sd == pytest.approx(each.std(0, ddof=1))


def test_layers_are_each_layers_own_sparsity(on_disk):
    made = figure.draw(on_disk, {"draw": "layers", "series": ["imp"], "sparsities": [0.36, 0.89]})
    for axes, round_ in zip(made.axes, (1, 3), strict=True):
        masks = [hand_made.mask(seed, round_, hand_made.LADDER[round_]) for seed in (0, 1)]
        plain = [[100 * (m == 0).sum() / m.numel() for m in mask.values()] for mask in masks]   # a plain count of zeros
        x, y = lines(axes)["imp"].get_data()
        assert x.tolist() == [1, 2, 3] and y == pytest.approx(np.mean(plain, 0))


def test_a_ticket_is_read_without_torch_as_with_it(on_disk, tmp_path):
    file = next(on_disk.folder.glob("imp-bird-s0/tickets/round_02.safetensors"))
    assert sparsity_in_file(file) == pytest.approx(layer_sparsity(Ticket.load(file).mask))
    assert list(sparsity_in_file(file)) == list(hand_made.LAYERS)
    broken = tmp_path / "round_00.safetensors"
    broken.write_bytes(file.read_bytes()[:-20])
    for bad in (broken, tmp_path / "none.safetensors"):
        with pytest.raises(InputError, match="not a readable ticket"):
            sparsity_in_file(bad)


def test_clean_and_degraded_are_cut_out_of_compare_png(on_disk, tmp_path):
    point = on_disk.series["imp"].points[0]
    cut = raster.given(point)
    for kind, number in (("clean", 7), ("degraded", 8)):
        assert np.array_equal(cut[kind], _levels(hand_made.picture(number)))
    high = hand_made.run(tmp_path, files=True, side=300)[0]     # higher than the panels: they are smaller
    assert raster.given(high)["clean"].shape == (256, 259, 3)
    write_png(high.folder / "clean.png", hand_made.picture(7, 300))
    assert np.array_equal(raster.given(high)["clean"], _levels(hand_made.picture(7, 300)))
    (high.folder / "compare.png").unlink()
    assert raster.given(high) == {}


def test_of_several_pictures_the_first_is_shown_with_its_own_numbers(on_disk, tmp_path):
    point = hand_made.run(tmp_path, files=True)[1]
    point.record["images"] = {"baby": {"psnr_picked": 31.5}, "bird": {"psnr_picked": 20.0}}
    for f in [*point.folder.glob("restored/round_01*.png"), point.folder / "compare.png"]:
        for name in ("bird", "baby"):
            f.with_stem(f"{f.stem}-{name}").write_bytes(f.read_bytes())
        f.unlink()
    assert raster.restored(point).name == "round_01-baby.png"
    assert raster.score(point) == 31.5 and raster.before(point) is None
    assert [f.name for f in raster.on_the_way(point).values()] == [
        "round_01_step_00010-baby.png", "round_01_step_00020-baby.png"]
    assert np.array_equal(raster.given(point)["clean"], _levels(hand_made.picture(7)))


def test_pictures_are_those_of_the_lowest_seed_with_the_psnr_of_the_picked_step(on_disk):
    spec = {"draw": "pictures", "series": ["dense", "imp", "snip"], "sparsities": [0.36, 0.89], "panels": "image.name"}
    heads, rows, sides = pictures.cells(on_disk, spec)
    assert heads == ["degraded", "dense", "36 % removed", "89 % removed", "clean"]
    assert sides == ["bird\nLIP", "bird\nSNIP", "woman\nLIP", "woman\nSNIP"]
    assert [c.caption for c in rows[0]] == ["20.50 dB", "25.20 dB", "25.10 dB", "24.30 dB", ""]
    assert np.array_equal(rows[0][3].picture, _levels(hand_made.picture(3)))
    assert [c.caption for c in rows[1]] == ["", "", "(not run)", "(not run)", ""]
    made = figure.draw(on_disk, spec)
    assert sum(len(a.images) for a in made.axes) == 2 * 5


def test_the_spectrum_is_that_of_numpy():
    y = np.random.default_rng(0).random((9, 12))
    plain = np.log(1 + np.abs([[sum(y[a, b] * np.exp(-2j * np.pi * (u * a / 9 + v * b / 12)) for a in range(9)
                                    for b in range(12)) for v in range(-6, 6)] for u in range(-4, 5)]))
    assert spectrum.log_magnitude(y) == pytest.approx(plain)
    f, power = spectrum.radial(y, bins=4)
    each = np.abs(np.fft.fft2(y) / y.size) ** 2
    far = np.hypot(np.fft.fftfreq(9)[:, None], np.fft.fftfreq(12))
    assert f == pytest.approx([1 / 16, 3 / 16, 5 / 16, 7 / 16])
    assert power == pytest.approx([each[(far > a / 8) & (far <= (a + 1) / 8)].mean() for a in range(4)])


def test_high_energy_is_what_lies_above_half_the_nyquist_frequency():
    x = np.arange(32)
    low, high = (0.5 + a * np.cos(2 * np.pi * k * x / 32) * np.ones((32, 1)) for a, k in ((0.2, 4), (0.1, 12)))
    assert spectrum.high_energy(low) == pytest.approx(0)
    assert spectrum.high_energy(high) == pytest.approx(1)
    assert spectrum.high_energy(low + high) == pytest.approx(0.1 ** 2 / (0.1 ** 2 + 0.2 ** 2))
    assert spectrum.high_energy(np.full((4, 4), 0.3)) == 0


def test_spectrum_draws_maps_differences_and_curves(on_disk):
    made = figure.draw(on_disk, {"draw": "spectrum", "series": ["imp", "snip"], "sparsities": [0.36]})
    above, below = made.subfigs
    maps = [np.asarray(a.images[0].get_array()) for a in above.axes if a.images]
    clean, imp = (raster.luma(_levels(hand_made.picture(n))) for n in (7, 1))
    assert len(maps) == 3                       # clean, imp, and their difference
    assert maps[1] == pytest.approx(spectrum.log_magnitude(imp))
    assert maps[2] == pytest.approx(spectrum.log_magnitude(imp) - spectrum.log_magnitude(clean))
    drawn = {line.get_label(): line for line in below.axes[0].lines}
    assert drawn["clean"].get_ydata() == pytest.approx(10 * np.log10(spectrum.radial(clean)[1]))


def test_rounds_mark_the_choice_of_the_rule(study):
    made = figure.draw(study, {"draw": "rounds", "series": "imp", "panels": "image.name"})
    assert len(made.axes) == 4
    choice = last_before_rises([p.record["loss"] for p in study.series["imp"].points[:4]])
    assert choice == study.series["imp"].points[0].run.best_round == 1
    rings = [line for line in made.axes[0].lines if line.get_markerfacecolor() == "none"]
    assert [line.get_xdata() for line in rings] == [[choice]] * 2
    assert [line.get_ydata()[0] for line in rings] == pytest.approx([0.018, 0.019])


def test_steps_show_pictures_on_their_way(on_disk):
    made = figure.draw(on_disk, {"draw": "steps", "series": "imp", "sparsity": 0.36})
    assert [a.get_title(loc="left") for a in made.axes] == ["step 10", "step 20"]
    assert np.array_equal(made.axes[1].images[0].get_array(), _levels(hand_made.picture(20_001)))
    assert [a.get_xlabel() for a in made.axes] == ["11.00 dB", "21.00 dB"]


def test_a_table_has_means_and_marks_the_best(study):
    made = table.build(study, {"draw": "table", "series": ["imp", "random", "snip", "dense"], "sparsities": [0, 0.59]})
    assert made.heads == ["", "0 %", "59 %"]
    each = [np.mean([hand_made.psnr("imp", p, s, 2) for p in ("bird", "woman")]) for s in (0, 1)]
    assert made.rows[0][2] == f"{np.mean(each):.2f} ± {np.std(each, ddof=1):.2f}"
    assert made.rows[2] == ["SNIP", "-", "-"]
    assert [row[2].startswith("**") for row in made.rows] == [False, False, False, True]
    assert made.markdown().splitlines()[1] == "| :--- | ---: | ---: |"
    made = table.build(study, {"draw": "table", "rows": "image.name", "columns": "sparsities", "series": "imp",
                               "metric": "mse_peak", "sparsities": [0.36, 0.89]})
    assert [row[0] for row in made.rows] == ["bird", "woman"] and made.rows[0][1].startswith("0.0200 ± 0.0000")
    with pytest.raises(InputError, match="rows or columns must be series"):
        table.build(study, {"draw": "table", "rows": "image.name"})


@pytest.mark.parametrize("kind", figure.KINDS)
def test_every_kind_is_drawn_where_nothing_was_run(study, kind):
    made = figure.draw(study, {"draw": kind, "series": ["snip"]})
    texts = [*legend(made), *(t.get_text() for f in (made, *made.subfigs) for a in f.axes
                              for t in (a.title, a._left_title, a.yaxis.label, *a.texts))]
    assert any("(not run)" in t for t in texts)


@pytest.mark.parametrize("file", [f for f in sorted(EXPERIMENTS.glob("*.yaml")) if "\nstudy:" in f.read_text()],
                         ids=lambda f: f.stem)
def test_the_figures_of_each_experiment_can_be_drawn(file):
    spec = yaml.safe_load(file.read_text())["study"]
    series = {name: Series(name, name, (), ({"values": {}},)) for name in spec["series"]}
    study = Study(file.parent, file.stem, "", "", "", "tiny", "psnr_peak", [], series, spec)
    for asked in spec.get("figures") or ():
        made = table.build(study, asked) if asked["draw"] == "table" else figure.draw(study, asked)
        assert made is not None


def test_files_are_the_same_for_the_same_figure(study, tmp_path):
    spec = {"draw": "curves", "series": "imp", "where": {"image.name": "bird"}}
    written = [figure.save(figure.draw(study, spec), tmp_path / name) for name in ("a", "b")]
    for first, second in zip(*written, strict=True):
        assert first.read_bytes() == second.read_bytes() and first.stat().st_size > 5000
    assert [f.name for f in written[0]] == ["a.png", "a.svg"] and len(list(tmp_path.iterdir())) == 4
    assert "<dc:date>" not in written[0][1].read_text()


def test_styles_are_told_apart_without_colour():
    names = [f"series {i}" for i in range(8)]
    styles = [style.style(names, n) for n in names]
    for a, b in itertools.combinations(styles, 2):
        grey = [rgb_to_hls(*colors.to_rgb(s.color))[1] for s in (a, b)]
        assert a.marker != b.marker and (a.linestyle != b.linestyle or abs(grey[0] - grey[1]) > 0.02)


def test_figures_need_neither_torch_nor_pyplot(tmp_path):
    code = ("import sys; from lipfw.report import figure; from lipfw.report.figure import curves, layers, learning, "
            "pictures, rounds, spectrum, steps, table; print([m for m in ('torch', 'matplotlib.pyplot') if m in "
            "sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def _levels(pixels: torch.Tensor) -> np.ndarray:
    return (pixels[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
