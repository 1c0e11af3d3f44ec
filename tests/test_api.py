"""Restoring from Python: pictures in, pictures of the same kind out, nothing left on the disk."""
import json
import signal

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from skimage import data

import lipfw
from lipfw import protocol
from lipfw.cli import CONF
from lipfw.errors import InputError
from lipfw.fit.budget import Budget
from lipfw.fit.restoration import Restoration
from lipfw.fit.stopping import HeldOutError, WindowedVariance
from lipfw.image.read import read
from lipfw.image.write import write_png
from lipfw.mask import Mask, prunable
from lipfw.prior import decoder, skip
from lipfw.pruner.random_layerwise import RandomLayerwise
from lipfw.task.inpaint import Inpaint
from lipfw.task.superres import SuperRes
from lipfw.ticket import INITIAL, Ticket, save_state

TINY = dict(steps=8, channels=4, depth=2)


def test_an_array_comes_back_at_its_size(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for picture in (data.camera()[:37, :50], data.chelsea()[:33, :41], data.chelsea()[:33, :41] / 255.0):
        restored = lipfw.restore(picture, **TINY)
        assert restored.array.shape == picture.shape and restored.array.dtype == np.float32
        assert 0 <= restored.array.min() and restored.array.max() <= 1 and 1 <= restored.step <= 8
    assert not list(tmp_path.iterdir())


def test_a_fit_gets_closer_to_the_picture():
    picture = data.chelsea()[100:132, 100:132] / 255.0
    errors = [np.mean((lipfw.restore(picture, steps=s, channels=16, depth=2, smoothing=0.5).array - picture) ** 2)
              for s in (2, 60)]
    assert errors[1] < errors[0] / 2


def test_files_alpha_and_tasks(tmp_path):
    alpha = torch.linspace(0, 1, 12 * 16).reshape(1, 1, 12, 16)
    write_png(tmp_path / "small.png", torch.rand(1, 3, 12, 16), alpha)
    restored = lipfw.restore(tmp_path / "small.png", SuperRes(3), **TINY)
    assert restored.array.shape == (36, 48, 3) and restored.alpha.shape == (36, 48)
    restored.save(tmp_path / "large.png")
    again = read(tmp_path / "large.png")
    assert np.abs(again.pixels[0].permute(1, 2, 0).numpy() - restored.array).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 5)), np.zeros(4), np.full((64, 64), 255.0), np.zeros((64, 64), bool),
                                 np.full((64, 64), np.nan), "nowhere.png"])
def test_what_is_no_picture_is_refused(bad):
    with pytest.raises(InputError):
        lipfw.restore(bad, **TINY)


CAT = data.chelsea()[100:132, 100:140]


@pytest.fixture
def seen(monkeypatch):
    """The fits that `restore` makes."""
    made, init = [], Restoration.__init__

    def watched(self, *args, **options):
        init(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(Restoration, "__init__", watched)
    return made


@pytest.mark.parametrize("given, kind", [
    (CAT, np.ndarray), (CAT.transpose(2, 0, 1) / 255.0, np.ndarray), (CAT[..., 0].astype(np.uint16) * 257, np.ndarray),
    (torch.from_numpy(CAT).permute(2, 0, 1)[None], torch.Tensor), (torch.from_numpy(CAT[..., 0] / 255), torch.Tensor),
    (torch.from_numpy(CAT / 255).permute(2, 0, 1).half(), torch.Tensor), (Image.fromarray(CAT), Image.Image),
    (Image.fromarray(CAT).convert("LA"), Image.Image)],
    ids=["uint8", "channels first", "grey uint16", "NCHW", "grey tensor", "half", "RGB", "LA"])
def test_the_picture_is_of_the_kind_that_was_given(given, kind):
    restored = lipfw.restore(given, **TINY)
    picture = restored.picture
    assert isinstance(picture, kind) and np.shape(picture) == np.shape(given)
    assert np.asarray(picture).dtype == np.asarray(given).dtype
    values = np.asarray(picture, float) / (np.iinfo(np.asarray(given).dtype).max
                                           if np.asarray(given).dtype.kind == "u" else 1)
    colours = values[..., :1] if getattr(given, "mode", "") == "LA" else values
    array = np.atleast_3d(restored.array)
    shaped = array.transpose(2, 0, 1) if restored.array.ndim == 3 and values.shape[-1] not in (2, 3) else array
    np.testing.assert_allclose(colours.reshape(shaped.shape), shaped, atol=0.5 / 255 + 1e-3)


@pytest.mark.parametrize("task, options, size", [
    ("denoise", {}, (32, 40)), ("superres", {"factor": 2}, (64, 80)), ("jpeg", {}, (32, 40)),
    ("deblur", {"kernel": np.ones((3, 4))}, (32, 40)), ("deblur", {"kernel": "motion", "length": 5}, (32, 40)),
    ("inpaint", {"mask": CAT[..., 0] > 60}, (32, 40)), ("clean", {}, (32, 40))])
def test_tasks_by_name_follow_their_yaml(seen, task, options, size):
    restored = lipfw.restore(CAT, task, **options, **TINY)
    assert restored.array.shape == (*size, 3) and restored.steps == 8 and restored.stopped_by is None
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [f"task={task}"])
    (module,) = seen
    assert module.smoothing == cfg.fit.smoothing and module.prior.jitter == pytest.approx(cfg.prior.jitter)
    assert isinstance(module.rule, HeldOutError) and module.stops
    assert protocol.follows(protocol.protocol_of(task), "fit", "restoration")["steps"] == cfg.fit.steps


def test_masks_of_all_kinds_are_one_mask(tmp_path):
    known = CAT[..., 0] > 60
    write_png(tmp_path / "mask.png", torch.from_numpy(known)[None, None].float())
    kinds = [known, known.tolist(), known * np.uint8(255), torch.from_numpy(known), known.astype(float),
             Image.fromarray(known), str(tmp_path / "mask.png"), tmp_path / "mask.png"]
    arrays = [lipfw.restore(CAT, "inpaint", mask=m, **TINY).array for m in kinds]
    arrays.append(lipfw.restore(CAT, Inpaint(mask=str(tmp_path / "mask.png")), **TINY).array)
    assert all((a == arrays[0]).all() for a in arrays)
    hidden = np.where(known[..., None], CAT, 255 - CAT)
    assert (lipfw.restore(hidden, "inpaint", mask=known, **TINY).array == arrays[0]).all()      # what is hidden is


def test_what_the_user_says_goes_before_the_yaml(seen):
    lipfw.restore(CAT, "inpaint", mask=CAT[..., 0] > 60, smoothing=0.5, jitter=0.2, fit={"pick": "wmv", "lr": 0.02},
                  **TINY)
    lipfw.restore(CAT, prior=decoder.build, **TINY)
    assert (seen[0].smoothing, seen[0].prior.jitter, seen[0].lr, seen[0].stops) == (0.5, 0.2, 0.02, False)
    assert isinstance(seen[0].rule, WindowedVariance) and seen[1].prior.jitter == 0


def test_progress_is_told_and_may_end_the_fit():
    told, pictures = [], []

    def progress(p):
        told.append(p)
        pictures.append(p.picture())

    restored = lipfw.restore(Image.fromarray(CAT), progress=progress, **{**TINY, "steps": 23})
    assert [p.step for p in told] == [10, 20, 23] and {(p.steps, p.round, p.rounds) for p in told} == {(23, 0, 1)}
    assert told[-1].seconds_left == 0 and all(p.seconds_left > 0 for p in told[:-1])
    assert 0 < told[0].seconds < told[1].seconds < told[2].seconds and all(p.loss > 0 for p in told)
    assert all(p.mode == "RGB" and p.size == (40, 32) for p in pictures)
    assert np.array_equal(np.asarray(pictures[-1]), np.asarray(restored.picture))
    for kind in (bool, np.bool_, torch.tensor):
        ended = lipfw.restore(CAT, progress=lambda p, kind=kind: kind(p.step >= 20), **{**TINY, "steps": 1000})
        assert (ended.steps, ended.stopped_by) == (20, "progress")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_exceptions_come_out_as_they_are(error):
    """Lightning answers Ctrl-C by SystemExit, and ignores it from then on."""
    def progress(p):
        raise error

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(error):
        lipfw.restore(CAT, progress=progress, **{**TINY, "steps": 50})
    assert signal.getsignal(signal.SIGINT) is before


def test_progress_ends_all_rounds():
    told = []
    ended = lipfw.restore(CAT, pruner=RandomLayerwise(rounds=2), progress=lambda p: told.append(p) or p.round == 1,
                          **TINY)
    assert [(p.round, p.rounds) for p in told] == [(0, 3), (1, 3)] and ended.steps == 8


def test_an_exception_that_ends_loops_does_not_end_the_fit_in_silence():
    with pytest.raises(RuntimeError, match="StopIteration"):
        lipfw.restore(CAT, progress=lambda p: next(iter(())), **{**TINY, "steps": 50})


def test_what_the_program_has_set_changes_nothing():
    """Not its default type or device, nor that it computes no gradients; and numbers may be numpy's."""
    plain = lipfw.restore(CAT, seed=3, **TINY).array
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.device("meta"):
            again = lipfw.restore(CAT, seed=np.int64(3), **{k: np.int32(v) for k, v in TINY.items()}).array
            assert torch.get_default_dtype() is torch.float64 and torch.empty(1).is_meta
    finally:
        torch.set_default_dtype(torch.float32)
    assert again.dtype == np.float32 and (again == plain).all()


def test_a_result_is_told_in_a_line_and_saved_as_what_it_is(tmp_path):
    restored = lipfw.restore(CAT, **TINY)
    assert len(repr(restored)) < 100 and restored == restored and restored != lipfw.restore(CAT, **TINY)
    for bad in ("restored.jpg", "none/restored.png", ""):
        with pytest.raises(InputError, match=r"\.png|no folder"):
            restored.save(tmp_path / bad)
    assert not list(tmp_path.iterdir())


def test_minutes_end_a_fit_with_the_best_so_far(monkeypatch):
    now = [0.0]

    def clock():
        now[0] += 1.0
        return now[0]

    start = Budget.start
    monkeypatch.setattr(Budget, "start", lambda b: (setattr(b, "clock", clock), start(b))[1])
    restored = lipfw.restore(CAT, minutes=1, **{**TINY, "steps": 100_000})
    assert restored.stopped_by == "time" and 1 <= restored.step <= restored.steps < 100


@pytest.fixture
def tickets(tmp_path):
    """A run's folder with three tickets of a small hourglass, of which round 1 is the best."""
    network = skip.build([(3, 32, 40)], channels=6, depth=2, skip_channels=2, code_channels=5, seed=4)
    folder = tmp_path / "run" / "tickets"
    folder.mkdir(parents=True)
    initial = save_state(folder / INITIAL, network.network.state_dict())
    for r in range(3):
        torch.manual_seed(r)
        mask = Mask({n: torch.rand(w.shape) < 1 - 0.2 * r for n, w in prunable(network.network).items()})
        Ticket(mask, {"architecture": json.dumps(network.architecture), "initial": initial, "round": str(r)}
               ).save(folder / f"round_{r:02d}.safetensors")
    (tmp_path / "run" / "result.json").write_text(json.dumps({"best_round": 1}))
    return tmp_path / "run"


def test_a_ticket_brings_its_network_and_a_run_its_best_round(tickets, seen):
    best = lipfw.restore(CAT, ticket=tickets, steps=6)
    named = lipfw.restore(CAT, ticket=str(tickets / "tickets" / "round_01.safetensors"), steps=6)
    other = lipfw.restore(CAT, ticket=tickets / "tickets" / "round_02.safetensors", steps=6)
    assert (best.array == named.array).all() and not (best.array == other.array).all()
    mask = Ticket.load(tickets / "tickets" / "round_01.safetensors").mask
    for name, weight in prunable(seen[0].prior.network).items():
        assert weight.shape == mask[name].shape and not weight[~mask[name]].any()
    assert seen[0].prior.code().shape == (1, 5, 32, 40)
    assert lipfw.restore(CAT[..., 0], ticket=tickets, steps=2).array.shape == (32, 40)      # in grey, too


def test_tickets_that_can_not_be_told_apart_or_used(tickets):
    with pytest.raises(InputError, match="another network"):
        lipfw.restore(CAT, ticket=tickets, steps=2, channels=7)
    with pytest.raises(InputError, match="give one of them"):
        lipfw.restore(CAT, ticket=tickets, pruner=RandomLayerwise(), steps=2)
    (tickets / "result.json").write_text("{}")
    with pytest.raises(InputError, match="has 3 tickets and no result that says which is the best; name one of them"):
        lipfw.restore(CAT, ticket=tickets, steps=2)


@pytest.mark.parametrize("options, told", [
    ({"task": "denoize"}, "did you mean denoise?"), ({"chanels": 3}, "did you mean channels?"),
    ({"task": "superres", "factr": 3}, "did you mean factor?"), ({"task": "inpaint"}, "needs mask="),
    ({"task": "inpaint", "mask": np.ones((3, 3))}, "3x3 pixels, the picture 40x32"),
    ({"task": "inpaint", "mask": np.zeros((32, 40))}, "the mask hides the whole picture"),
    ({"task": "deblur", "kernel": -np.ones((3, 3))}, "kernel= must be an array"), ({"minutes": 0}, "minutes must be"),
    ({"task": "deblur", "kernel": np.ones(3)}, "got (3,) of float64"), ({"task": "cs"}, "measures a clean picture"),
    ({"ticket": "nowhere"}, "no ticket at nowhere"), ({"ticket": "zoo:multi"}, "zoo:multi-s59, zoo:multi-s79"),
    ({"task": "custom"}, "needs operator="), ({"task": None}, "got None"), ({"task": lambda p: p}, "got Picture"),
    ({"task": "superres", "factor": 10_000}, "400000x320000 pixels"),
    ({"task": "superres", "factor": 1}, "\0factor must"),
    ({"fit": {"stp": 1}}, "did you mean stop?"), ({"fit": "emv"}, "a dictionary"), ({"prior": "skip"}, "got 'skip'"),
    ({"pruner": "imp"}, "must be a Pruner"), ({"progress": 3}, "got 3"), ({"device": "cuda:7"}, "auto, cpu, gpu"),
    ({"depth": 9}, "for depth=9:"), ({"fit": {"objective": "mom"}}, 'use fit={"objective": "ls"}'),
    ({"task": "inpaint", "mask": np.arange(1280).reshape(32, 40) < 5}, 'use fit={"pick": "wmv"}')])
def test_what_can_not_be_done_is_told_in_one_line(options, told):
    with pytest.raises(InputError) as e:
        lipfw.restore(CAT, **{**TINY, **options})
    assert told in "\0" + str(e.value) and "\n" not in str(e.value)


def test_public_names():
    for name in lipfw.__all__:
        assert getattr(lipfw, name) is not None
    with pytest.raises(AttributeError, match="it has"):
        _ = lipfw.nothing
