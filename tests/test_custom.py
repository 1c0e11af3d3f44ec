"""Operators and networks of the user's own: by import path or file, what they must be, and whole runs of them."""
import contextlib
import copy
import io
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from torch import nn

import lipfw
from lipfw.cli import CONF, main
from lipfw.errors import InputError
from lipfw.fit.restoration import Restoration
from lipfw.folder import run_folder
from lipfw.image.picture import Picture
from lipfw.image.write import write_png
from lipfw.imported import imported
from lipfw.prior import custom
from lipfw.prior.prior import rebuild
from lipfw.pruner.imp import IMP
from lipfw.recorder import Recorder
from lipfw.run import run
from lipfw.task.custom import Custom
from lipfw.ticket import Ticket
from lipfw.tickets import rows

try:
    import deepinv
except (ImportError, RuntimeError, OSError):        # also where torchvision is of another build than torch
    deepinv = None

OWN = '''
import numpy as np
import torch
from torch import nn

def rows(x):
    """The mean of each row."""
    return x.mean(3)

def halves(x, factor=2):
    return nn.functional.avg_pool2d(x, factor)

def make(width):
    return Blinds(width)

class Blinds(nn.Module):
    def __init__(self, width=2):
        super().__init__()
        self.register_buffer("seen", (torch.arange(64) % (2 * width) < width).float())
        self.gain = nn.Parameter(torch.ones(()))
    def forward(self, x):
        return self.gain * x * self.seen[:x.shape[3]]

blinds = Blinds(4)

class Scattered(nn.Module):
    """Draws which pixels are seen as it is made."""
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.bernoulli(torch.full((24, 20), 0.5)))
    def forward(self, x):
        return x * self.seen

scattered = Scattered()

class Physics:
    """Like one of deepinv's: A is the operator, a call measures with noise."""
    def A(self, x):
        return x[..., ::2]
    def __call__(self, x):
        y = self.A(x)
        return y + 0.1 * torch.randn_like(y)

class Net(nn.Sequential):
    def __init__(self, width=4, last=None):
        super().__init__(nn.Conv2d(5, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
                         nn.Conv2d(width, 3, 1), *([last] if last else []))

def inside(width=4):
    return Net(width, nn.Sigmoid())

net = Net()

def linear():
    class PerPixel(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Linear(5, 3)
        def forward(self, z):
            return self.mix(z.movedim(1, 3)).movedim(3, 1)
    return PerPixel()

# what can't be used
def by_numpy(x):
    return torch.from_numpy(np.asarray(x.detach()))
def rounded(x):
    return x.round()
def random(x):
    return x + torch.randn_like(x)
def a_list(x):
    return [x]
def grown(x):
    return x / (x - x)
def in_place(x):
    return x.mul_(2)
def breaks(x):
    raise KeyError("no such angle")
def rooted(x):
    return (x - x).sqrt()
def text():
    return "net"
def flat():
    return nn.Sequential(nn.Conv2d(5, 3, 1), nn.Flatten())
def small():
    return nn.Conv2d(5, 3, 3)
def grey():
    return nn.Conv2d(5, 1, 1)
def dropout():
    return Net(last=nn.Dropout())
def weightless():
    return nn.Upsample(scale_factor=2)
class Pair(Net):
    def forward(self, z):
        return super().forward(z), z
class Half(Net):
    def forward(self, z):
        return super().forward(z).half()
class Divided(Net):
    def forward(self, z):
        return super().forward(z) / 0
class Detached(Net):
    def forward(self, z):
        return super().forward(z).detach()
number = 3
class Viewed(Blinds):
    def view(self, y):
        return y.mean()
'''
TINY = ["trainer=smoke", "trainer.progress=false", "logger=none", "image.size=16", "fit.steps=6", "fit.log_every=2"]
SKIP = ["prior.channels=4", "prior.depth=2"]
NET = ["prior=custom", "prior.network=own.py:Net", "prior.code_channels=5"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of the user's, with own.py in it, that is the current one."""
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own(here):
    """What own.py defines."""
    return lambda name: imported("task.operator", f"own.py:{name}")


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*TINY, *overrides])


def go(*overrides):
    cfg = config(*overrides)
    return run_folder(cfg), run(cfg)


# --- what is named

def test_names_of_modules_files_and_what_lies_in_them(here, own):
    (here / "package").mkdir()
    (here / "package/inner.py").write_text("class Outer:\n    class Inner:\n        value = 7\n")
    path = list(sys.path)
    try:
        sys.path[:] = [p for p in sys.path if p not in ("", str(here))]     # as the script `lipfw` starts
        assert imported("x", "package.inner.Outer.Inner").value == 7
        assert imported("x", "package.inner:Outer.Inner").value == 7
        assert imported("x", str(here / "package/inner.py") + ":Outer.Inner").value == 7
    finally:
        sys.path[:] = path
    assert imported("x", "torch.nn.functional.relu") is nn.functional.relu
    assert imported("x", len) is len
    first = own("rows")
    assert own("rows") is first
    (here / "own.py").write_text(OWN.replace("x.mean(3)", "x.sum(3)"))     # edited meanwhile
    assert torch.equal(own("rows")(torch.ones(1, 1, 2, 5)), torch.full((1, 1, 2), 5.))


@pytest.mark.parametrize("path, told", [
    ("nowhere.at.all", "No module named 'nowhere'"), ("torch.nn.Convolution", "no attribute 'Convolution'"),
    ("own.py:nothing", "no attribute 'nothing'"), ("none.py:rows", "No such file"),
    ("wrong.py:x", "SyntaxError"),
    ("asks.what", r"No module named 'missing_one' \(asks.py, line 2\)"), ("a b", "No module named 'a b'"),
    (".own.rows", "Empty module name|relative import"), ("", "must be an import path"),
    (None, "must be an import path"),
    (3, "must be an import path, package.module.name, or FILE.py:name, got 3")])
def test_a_name_that_is_not_there(here, path, told):
    (here / "wrong.py").write_text("def x(:\n")
    (here / "asks.py").write_text("\nimport missing_one\n")
    with pytest.raises(InputError, match=told) as caught:
        imported("task.operator", path)
    assert str(caught.value).startswith("task.operator") and "\n" not in str(caught.value)


# --- operators

def expected(name, x):
    """The same measurements by indexing and loops."""
    if name == "rows":
        return torch.stack([x[..., j] for j in range(x.shape[3])]).sum(0) / x.shape[3]
    if name == "halves":
        return sum(x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
    out = x.clone()
    for j in range(x.shape[3]):
        if j // int(name) % 2:
            out[..., j] = 0
    return out


@pytest.mark.parametrize("name, arguments, same", [
    ("rows", None, "rows"), ("halves", {"factor": 2}, "halves"), ("make", {"width": 3}, "3"), ("Blinds", None, "2"),
    ("Blinds", {"width": 1}, "1"), ("blinds", None, "4")])
def test_a_function_a_factory_a_class_and_an_object(own, picture, name, arguments, same):
    problem = Custom(f"own.py:{name}", arguments)(picture)
    assert torch.allclose(problem.measurement, expected(same, picture.pixels), atol=1e-6)
    assert torch.equal(problem.operator(picture.pixels), problem.measurement)
    assert not any(p.requires_grad for p in problem.operator.parameters())
    seen = problem.operator.view(problem.measurement)
    assert seen.shape == picture.pixels.shape and 0 <= seen.min() and seen.max() <= 1


def test_an_object_stays_as_it_is_whatever_a_run_does_to_its_copy(own, picture):
    operator = Custom("own.py:blinds")(picture).operator
    operator.double()
    assert own("blinds").seen.dtype == torch.float32 and own("blinds").gain.requires_grad


def test_the_view_of_a_measurement_that_is_no_picture_is_the_best_step_from_grey(own, picture):
    """Of row means: each pixel moves by the same along a row, until the means are right."""
    problem = Custom("own.py:rows")(picture)
    seen = problem.operator.view(problem.measurement)
    assert torch.allclose(seen, problem.measurement[..., None].expand(picture.pixels.shape), atol=1e-4)


def test_noise_is_drawn_from_the_seed_and_the_name(own, picture):
    def noise(seed=0, name="waves", std=0.5):
        made = Custom("own.py:Blinds", noise=std, seed=seed)(Picture(name, picture.pixels))
        return made.measurement - made.operator(picture.pixels)

    first = noise()
    assert abs(float(first.std()) / 0.5 - 1) < 0.1 and torch.equal(first, noise())
    assert not torch.allclose(first, noise(seed=1)) and not torch.allclose(first, noise(name="other"))
    assert torch.allclose(noise(std=1.0), 2 * first, atol=1e-5)


def test_what_an_operator_draws_as_it_is_made_follows_from_the_seed(own, picture):
    """Else a run that was killed would go on with another operator."""
    def seen(name, seed):
        return Custom(f"own.py:{name}", seed=seed)(picture).operator.user.seen

    first = seen("Scattered", 1)
    torch.rand(7)
    assert torch.equal(seen("Scattered", 1), first) and not torch.equal(seen("Scattered", 2), first)
    loaded = seen("scattered", 1)
    for name in [n for n in sys.modules if n.startswith("own_")]:
        del sys.modules[name]       # as in another process
    assert torch.equal(seen("scattered", 2), loaded)


def test_runs_side_by_side_import_a_file_one_after_the_other(here):
    (here / "slow.py").write_text("import time\ntime.sleep(0.3)\ndef same(x):\n    return x\n")
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: imported("task.operator", "slow.py:same"), range(2)))
    assert found[0] is found[1]


def test_an_object_with_a_method_A_brings_its_own_noise(own, picture):
    """And the fit sees A without it; the same seed draws the same noise, whatever was drawn before."""
    first = Custom("own.py:Physics", seed=1)(picture)
    torch.rand(7)
    again, other = Custom("own.py:Physics", seed=1)(picture), Custom("own.py:Physics", seed=2)(picture)
    clean = picture.pixels[..., ::2]
    assert torch.equal(first.operator(picture.pixels), clean)
    assert abs(float((first.measurement - clean).std()) / 0.1 - 1) < 0.1
    assert torch.equal(first.measurement, again.measurement)
    assert not torch.allclose(first.measurement, other.measurement)


def test_complex_measurements_are_pairs(picture):
    problem = Custom("torch.fft.fft2", {"norm": "ortho"})(picture)
    assert problem.measurement.shape == (*picture.pixels.shape, 2)
    assert torch.allclose(problem.measurement.square().sum(), picture.pixels.square().sum(), rtol=1e-4)     # Parseval
    seen = problem.operator.view(problem.measurement)
    assert torch.allclose(seen, picture.pixels, atol=1e-3)      # orthonormal: one step from grey is all


def test_pictures_of_one_shape_share_an_operator(own, picture):
    task = Custom("own.py:rows")
    flat = Picture("flat", picture.pixels[:, :, :12].contiguous())
    first, second, third = task(picture), task(Picture("b", picture.pixels.flip(2))), task(flat)
    assert first.operator is second.operator is not third.operator
    assert third.operator.view(third.measurement).shape == flat.pixels.shape


def test_a_measurement_from_a_file(here, own, picture):
    y = np.random.default_rng(0).random((3, 24), dtype=np.float32)
    for array in (y, y[None].astype(np.float64)):
        np.save("y.npy", array)
        problem = Custom("own.py:rows", measurement="y.npy")(picture)
        assert np.allclose(problem.measurement.numpy(), y[None]) and problem.image is not None
    spectrum = np.fft.fft2(picture.pixels.numpy())
    np.save("s.npy", spectrum)
    problem = Custom("torch.fft.fft2", measurement="s.npy")(picture)
    assert np.allclose(torch.view_as_complex(problem.measurement).numpy(), spectrum, atol=1e-3)
    unknown = Picture("waves", picture.pixels, degraded=True)
    assert Custom("own.py:rows", measurement="y.npy")(unknown).image is None


def test_a_measurement_of_another_shape_is_told_with_both(here, own, picture):
    np.save("y.npy", np.zeros((3, 20), np.float32))
    with pytest.raises(InputError, match=r"rows gives \(1, 3, 24\), and task.measurement=y.npy is \(3, 20\)"):
        Custom("own.py:rows", measurement="y.npy")(picture)
    with pytest.raises(InputError, match=r"gives \(1, 3, 24\) for a picture of \(1, 3, 24, 20\).*FILE.npy"):
        Custom("own.py:rows")(Picture("waves", picture.pixels, degraded=True))
    assert Custom("own.py:Blinds")(Picture("waves", picture.pixels, degraded=True)).image is None


class Touch:
    """What a pickle would do."""
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("write, told", [
    (lambda p: np.save(p, np.array([Touch()], object)), "can't be read"),
    (lambda p: np.save(p, np.full((3, 24), np.nan)), "not finite"), (lambda p: np.save(p, np.full((3, 24), "a")),
                                                                   "no numbers"),
    (lambda p: p.write_bytes(b"\x93NUMPY\x01\x00"), "can't be read"), (lambda p: None, "no such file"),
    (lambda p: p.write_bytes(b"PK\x03\x04 not a zip"), "can't be read"), (lambda p: p.mkdir(), "no such file")])
def test_a_measurement_that_cannot_be_used(here, own, picture, write, told):
    write(here / "y.npy")
    with pytest.raises(InputError, match=f"task.measurement=y.npy .*{told}") as caught:
        Custom("own.py:rows", measurement="y.npy")(picture)
    assert "\n" not in str(caught.value) and not (here / "executed").exists()


@pytest.mark.parametrize("name, arguments, told", [
    ("by_numpy", None, "no gradient with respect to the picture"), ("rounded", None, "no gradient"),
    ("random", None, "another measurement each time"), ("a_list", None, "must give a tensor, and not a list"),
    ("grown", None, "not finite"), ("rooted", None, "gradient that is not finite"), ("in_place", None, "in-place"),
    ("breaks", None, r"fails: KeyError: 'no such angle' \(own.py, line \d+\)"), ("number", None, "can't be called"),
    ("Blinds", {"height": 2}, r"Blinds\(height=2\) failed: TypeError"),
    ("blinds", {"width": 2}, "is an object, made already"), ("rows", [1], "must be keyword arguments"),
    ("Viewed", None, r"its view\(y\) must be a picture \(1, 3, 24, 20\), got a Tensor \(\)")])
def test_an_operator_that_cannot_be_used(own, picture, name, arguments, told):
    with pytest.raises(InputError, match=told) as caught:
        Custom(f"own.py:{name}", arguments)(picture)
    assert "\n" not in str(caught.value)


# --- networks

SHAPES = [(3, 20, 24)]


def test_a_network_by_class_function_and_object(own):
    first = custom.build(SHAPES, network="own.py:Net", arguments={"width": 6}, code_channels=5, multiple=8, seed=1)
    assert first.code().shape == (1, 5, 24, 24) and first().shape == (1, 3, 20, 24) and 0 < first().min()
    state = torch.random.get_rng_state()
    again = custom.build(SHAPES, network="own.py:Net", arguments={"width": 6}, code_channels=5, multiple=8, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)     # nobody else's draws are touched
    other = custom.build(SHAPES, network="own.py:Net", arguments={"width": 6}, code_channels=5, multiple=8, seed=2)
    assert torch.equal(first(), again()) and not torch.equal(first(), other())
    given = [custom.build(SHAPES, network="own.py:net", code_channels=5, seed=s).network for s in (1, 2)]
    assert torch.equal(given[0][0].weight, given[1][0].weight) and given[0] is not given[1] is not own("net")
    assert all(n[1].num_batches_tracked == 0 for n in given)      # looked at on a copy


def test_an_output_that_is_a_picture_already_is_not_squashed_again(own):
    logits = custom.build(SHAPES, network="own.py:Net", code_channels=5)
    inside = custom.build(SHAPES, network="own.py:inside", code_channels=5, sigmoid=False)
    assert torch.equal(logits(), inside())      # the same weights, a sigmoid each


def test_a_decoder_has_a_smaller_code(own):
    class Double(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Conv2d(5, 3, 1), nn.Upsample(scale_factor=8))

    prior = custom.build(SHAPES, network=Double, code_channels=5, multiple=16, reduction=8)
    assert prior.code().shape == (1, 5, 4, 4) and prior().shape == (1, 3, 20, 24)
    with pytest.raises(InputError, match="prior.reduction=5 does not divide prior.multiple=32"):
        custom.build(SHAPES, network=Double, reduction=5)


@pytest.mark.parametrize("name, told", [
    ("flat", r"does not return a picture but a tensor \(1, \d+\) of torch.float32; a picture is made of a code "
             r"\(1, 5, 32, 32\), as a tensor \(1, 3, >= 20, >= 24\)"),
    ("small", None), ("grey", r"a tensor \(1, 1, 32, 32\)"), ("Pair", "a tuple"),
    ("dropout", "another picture of the same"),
    ("weightless", "no weights"), ("text", "makes a str; a network is a torch.nn.Module"), ("number", "is a int"),
    ("Half", r"a tensor \(1, 3, 32, 32\) of torch.float16; .* of torch.float32"), ("Divided", "not finite"),
    ("Detached", "no gradient with respect to its weights"), ("rows", r"rows\(\) failed: TypeError")])
def test_a_network_that_cannot_be_used(own, name, told):
    if told is None:        # the border that it lacks is what is cut off
        assert custom.build(SHAPES, network=f"own.py:{name}", code_channels=5)().shape == (1, *SHAPES[0])
        name, told, shapes = name, r"a tensor \(1, 3, 30, 30\)", [(3, 32, 32)]
    else:
        shapes = SHAPES
    with pytest.raises(InputError, match=told) as caught:
        custom.build(shapes, network=f"own.py:{name}", code_channels=5)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="own.py:Net fails: RuntimeError: .*prior.code_channels"):
        custom.build(SHAPES, network="own.py:Net", code_channels=4)


def test_no_code_is_executed_that_a_ticket_names(own, here):
    (here / "evil.py").write_text("import os\nos.mkdir('executed')\n")
    told = custom.build(SHAPES, network="own.py:Net", code_channels=5).architecture
    json.dumps(told)
    for path in ("evil.py:Net", "evil.Net", None):
        with pytest.raises(InputError, match="its network is its user's own.*no code is executed"):
            rebuild({**told, "path": path})
    assert not (here / "executed").exists()


# --- whole runs

def test_tickets_of_ones_own_network_for_ones_own_operator(here):
    """IMP finds them, another task replays them, and they are told of without the network's code."""
    folder, result = go("task=custom", "task.operator=own.py:rows", *NET, "pruner=imp", "pruner.rounds=2")
    assert [round(r["sparsity"], 2) for r in result["rounds"]] == [0, 0.2, 0.36]
    assert folder.name.startswith("custom-astronaut-custom-imp-s0-")
    assert all((folder / name).is_file() for name in ("restored.png", "compare.png", "tickets/round_02.safetensors"))
    again, replayed = go("task=deblur", "task.size=5", *NET, "pruner=ticket", f"pruner.path={folder}")
    masks = [[Ticket.load(f / f"tickets/round_{r:02d}.safetensors").mask for r in range(3)] for f in (folder, again)]
    assert all(torch.equal(a[n], b[n]) for a, b in zip(*masks, strict=True) for n in a)
    table, said = rows.rounds(rows.read(folder))
    assert [r["kept"] for r in table] == [m.count for m in masks[0]] and table[0]["params_left"] is None
    assert any("its user's own" in s for s in said)


@pytest.mark.parametrize("pruner", ["snip", "synflow"])
def test_pruners_at_initialisation_take_ones_own_network(here, pruner):
    _, result = go("task=custom", "task.operator=own.py:Blinds", *NET, f"pruner={pruner}", "pruner.sparsities=[0.5]")
    assert round(result["rounds"][1]["sparsity"], 2) == 0.5


def test_a_network_without_convolutions_is_fitted_and_not_pruned(here):
    options = ["task=clean", "prior=custom", "prior.network=own.py:linear", "prior.code_channels=5"]
    _, result = go(*options)
    assert result["rounds"][0]["sparsity"] == 0 and result["rounds"][0]["params_left"] == 18
    with pytest.raises(InputError, match="the network has no convolutions.*pruner=none"):
        go(*options, "pruner=imp")


def test_a_killed_run_goes_on_to_the_same_bits(here, monkeypatch):
    options = ["task=custom", "task.operator=own.py:rows", "task.noise=0.01", *NET, "pruner=imp", "pruner.rounds=2",
               "trainer.checkpoint_seconds=0", "fit.steps_per_batch=2"]
    folder, whole = go(*options)
    follow, calls = Recorder.on_train_batch_end, []

    def die(self, *arguments):
        follow(self, *arguments)
        calls.append(1)
        if len(calls) == 5:
            raise RuntimeError("killed")

    monkeypatch.setattr(Recorder, "on_train_batch_end", die)
    with pytest.raises(RuntimeError, match="killed"):
        go(*options, "name=killed")
    monkeypatch.setattr(Recorder, "on_train_batch_end", follow)
    again, result = go(*options, "name=killed")
    assert (again / "restored.png").read_bytes() == (folder / "restored.png").read_bytes()
    assert [r["loss"] for r in result["rounds"]] == [r["loss"] for r in whole["rounds"]]
    for name in ("round_02", "initial"):
        a, b = (f / f"tickets/{name}.safetensors" for f in (folder, again))
        assert name == "initial" or all(torch.equal(Ticket.load(a).mask[n], m) for n, m in Ticket.load(b).mask.items())


def test_a_run_is_named_by_what_a_file_of_code_holds(here):
    def name(*options):
        return run_folder(config("task=custom", *options)).name

    first = name("task.operator=own.py:rows")
    assert name("task.operator=own.py:halves") != first
    (here / "copy.py").write_text(OWN)
    assert name("task.operator=copy.py:rows") == first
    with_net = name("task.operator=own.py:rows", *NET)
    (here / "own.py").write_text(OWN + "\n")
    assert name("task.operator=own.py:rows") != first and name("task.operator=own.py:rows", *NET) != with_net
    module, inner = name("task.operator=own.rows"), name("task.operator=package.own:rows")
    (here / "package").mkdir()
    (here / "package/own.py").write_text(OWN)
    assert name("task.operator=package.own:rows") != inner
    (here / "own.py").write_text(OWN)
    assert name("task.operator=own.rows") != module
    np.save("y.npy", np.zeros((3, 16), np.float32))
    measured = name("task.operator=own.rows", "task.measurement=y.npy")
    np.save("y.npy", np.ones((3, 16), np.float32))
    assert name("task.operator=own.rows", "task.measurement=y.npy") != measured
    assert name("task.operator=own.rows", "task.arguments={a: 1}") != name("task.operator=own.rows")


def test_several_pictures_of_unlike_sizes(here):
    (here / "photos").mkdir()
    for i, size in enumerate([(16, 20), (24, 18)]):
        write_png(here / f"photos/{i}.png", torch.rand(1, 3, *size))
    _, result = go("task=custom", "task.operator=own.py:rows", *NET, "image=folder", "image.path=photos",
                   "image.size=null")
    assert len(result["rounds"][0]["images"]) == 2


def test_from_python(own, picture, train):
    """As `lipfw.restore` takes them: the objects themselves."""
    y = own("halves")(picture.pixels, 1)
    restored = lipfw.restore(y[0].permute(1, 2, 0).numpy(), Custom(own("Blinds")), prior=custom.build,
                             network=own("Net"), code_channels=5, steps=4)
    assert restored.array.shape == (24, 20, 3)
    problem = Custom(lambda x: x[:, :1])(picture)
    fitted = Restoration([problem], custom.build([problem.shape], network=own("Net"), code_channels=5), steps=4)
    train(fitted, IMP(rounds=1))


@pytest.mark.parametrize("arguments, told", [
    (["task=custom"], "task.operator must be given"), (["prior=custom"], "prior.network must be given"),
    (["task=custom", "task.operator=nowhere.rows"], "No module named 'nowhere'"),
    (["task=custom", "task.operator=own.py:breaks"], "KeyError: 'no such angle'"),
    (["task=custom", "task.operator=own.rows", "image.degraded=true"],
     "gives (1, 3, 12) for a picture of (1, 3, 12, 12)"),
    (["task=custom", "task.operator=own.Blinds", "task.arguments={width: 0, x: 1}"], "Blinds(width=0, x=1) failed"),
    (["prior=custom", "prior.network=own.Pair", "prior.code_channels=5"], "does not return a picture but a tuple"),
    (["prior=custom", "prior.network=own.linear", "prior.code_channels=5", "pruner=imp"], "has no convolutions"),
    (["task=deblur", "task.kernel=gausian"], "did you mean gaussian?"), (["task=deblur"], "is too large for a picture"),
    (["task=jpeg", "task.quality=100"], "task.quality must be at most 95, got 100")])
def test_one_line_at_the_command_line(here, monkeypatch, arguments, told):
    monkeypatch.setattr(sys, "argv", ["lipfw", *TINY, "image.size=12", *arguments])
    GlobalHydra.instance().clear()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1 and told in err.getvalue() and err.getvalue().count("\n") == 1
    assert not (here / "runs").exists()


# --- deepinv

def test_without_deepinv_its_networks_are_refused_in_a_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepinv.models", None)
    for prior in ("unet", "convdecoder"):
        with pytest.raises(InputError, match=rf"prior={prior} .*pip install 'lipfw\[deepinv\]'"):
            go(f"prior={prior}")


needs_deepinv = pytest.mark.skipif(deepinv is None, reason="deepinv is not installed")


@needs_deepinv
@pytest.mark.parametrize("prior, options", [("unet", ["prior.depth=3"]), ("convdecoder", ["prior.depth=4"])])
def test_deepinvs_networks_are_priors(here, prior, options):
    _, result = go(f"prior={prior}", "prior.channels=4", *options, "pruner=imp", "pruner.rounds=1", "image.size=18",
                   "fit.steps=30")
    folder = next(Path("runs/default").iterdir())
    table, said = rows.rounds(rows.read(folder))        # rebuilt from what the ticket tells
    assert [r["params_left"] for r in table] == [r["params_left"] for r in result["rounds"]] and len(said) == 1
    losses = [json.loads(line)["loss"] for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert losses[14] < losses[0]


@needs_deepinv
def test_deepinvs_physics_is_an_operator(here):
    _, result = go("task=custom", "task.operator=deepinv.physics.Demosaicing", "task.arguments={img_size: [3, 16, 16]}",
                   *SKIP)
    assert np.isfinite(result["degraded"]["psnr"])
    physics = deepinv.physics.Inpainting((3, 24, 20), mask=0.5, noise_model=deepinv.physics.GaussianNoise(0.1),
                                         rng=torch.Generator().manual_seed(0))
    x = torch.rand(1, 3, 24, 20)
    problem = Custom(copy.deepcopy(physics))(Picture("noise", x))
    assert torch.equal(problem.operator(x), physics.A(x))
    assert 0.02 < float((problem.measurement - physics.A(x)).std()) < 0.2
