"""Tickets on other pictures, tasks and channels: what travels, what does not, and what the result says of it."""
import json

import pytest
import torch
from hydra import compose, initialize_config_dir

from lipfw.cli import CONF
from lipfw.errors import InputError
from lipfw.mask import Mask, prunable
from lipfw.prior import decoder, skip
from lipfw.pruner.ticket import Replay
from lipfw.run import run
from lipfw.ticket import INITIAL, Ticket, save_state

SMALL = ["trainer=smoke", "trainer.progress=false", "logger=none", "image.size=16", "prior.channels=4", "prior.depth=2",
         "fit.steps=6", "fit.log_every=2"]


@pytest.fixture
def go(tmp_path, monkeypatch):
    """Return a function that does a run here and returns its folder and result."""
    monkeypatch.chdir(tmp_path)

    def go(*overrides):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", [*SMALL, *overrides])
        result = run(cfg)
        return tmp_path / "runs" / cfg.name / result["run"], result
    return go


def network(build, channels, seed):
    options = {"skip_channels": 2, "code_channels": 3} if build is skip.build else {}
    return build([(channels, 16, 16)], channels=5, depth=2, seed=seed, **options).network


@pytest.mark.parametrize("build", [skip.build, decoder.build])
@pytest.mark.parametrize("found, here", [(3, 1), (1, 3)])
@pytest.mark.parametrize("init", ["ticket", "fresh"])
def test_a_ticket_fits_a_network_of_other_output_channels(build, found, here, init, tmp_path):
    """The head stays dense and this run's own; everything else is the ticket's."""
    source = network(build, found, 1)
    mask = Mask({n: torch.rand(w.shape, generator=torch.Generator().manual_seed(3)) < 0.4
                 for n, w in prunable(source).items()})
    initial = save_state(tmp_path / INITIAL, source.state_dict())
    Ticket(mask, {"initial": initial}).save(tmp_path / "round_00.safetensors")
    target, own = network(build, here, 2), network(build, here, 2)
    pruner = Replay(str(tmp_path), init)
    pruner.prepare(target)
    head = list(prunable(target))[-1]
    fits = pruner.prune(target, None, 0, None, 0)
    assert fits[head].all() and fits[head].shape == prunable(target)[head].shape
    assert all(torch.equal(fits[n], mask[n]) for n in mask if n != head)
    assert pruner.counts(target) == [sum(int(m.sum()) for n, m in mask.items() if n != head) + fits[head].numel()]
    (remark,) = pruner.remarks
    assert head in remark and f"makes {here} channels and the ticket's {found}" in remark
    weights = source.state_dict() if init == "ticket" else own.state_dict()
    for name, value in target.state_dict().items():
        expected = own.state_dict() if name.startswith(head.removesuffix("weight")) else weights
        assert torch.equal(value, expected[name]), name


def test_fresh_weights_that_are_the_tickets_own_are_told(tmp_path):
    """The same seed draws the same weights: the mask alone needs another."""
    source = network(skip.build, 3, 1)
    Ticket(Mask.ones(source), {"initial": save_state(tmp_path / INITIAL, source.state_dict())}).save(
        tmp_path / "round_00.safetensors")
    for seed, told in ((1, True), (2, False)):
        pruner = Replay(str(tmp_path), "fresh")
        pruner.prepare(network(skip.build, 3, seed))
        assert any("use another prior.seed" in r for r in pruner.remarks) is told


def test_the_same_channels_leave_no_remark_and_another_width_is_refused(tmp_path):
    source = network(skip.build, 3, 1)
    Ticket(Mask.ones(source), {"initial": save_state(tmp_path / INITIAL, source.state_dict())}).save(
        tmp_path / "round_00.safetensors")
    pruner = Replay(str(tmp_path))
    pruner.prepare(network(skip.build, 3, 2))
    assert pruner.remarks == []
    wider = skip.build([(1, 16, 16)], channels=6, depth=2, skip_channels=2, code_channels=3).network
    with pytest.raises(InputError, match="belongs to another network: encoders.0.down.0.weight"):
        Replay(str(tmp_path)).prepare(wider)


def test_the_result_tells_which_ticket_was_used_and_where_it_was_found(go):
    folder, found = go("pruner=imp", "pruner.rounds=2", "name=found", "seed=4")
    assert "tickets" not in found and found["oracle_round"] in range(3)
    best = max(found["rounds"], key=lambda r: r["psnr_picked"])
    assert found["rounds"][found["oracle_round"]] == best
    other, used = go("task=inpaint", "image.name=chelsea", "pruner=ticket", f"pruner.path={folder}")
    assert [t["found"]["round"] for t in used["tickets"]] == ["0", "1", "2"]
    for ticket, r in zip(used["tickets"], used["rounds"], strict=True):
        origin = ticket["found"]
        assert origin["label"] == "denoise-astronaut-skip-imp" and origin["seed"] == "4"
        assert origin["run"] == folder.name and origin["sparsity"] == r["sparsity"]
    assert json.loads((other / "result.json").read_text())["tickets"] == used["tickets"]
    again, _ = go("pruner=imp", "pruner.rounds=2", "name=found", "seed=5")
    options = {Ticket.load(f / "tickets/round_01.safetensors").about["options"] for f in (folder, again)}
    assert len(options) == 1        # runs that differ only in their seeds are told as such
    third, _ = go("pruner=imp", "pruner.rounds=2", "name=found", "task.sigma=30")
    assert Ticket.load(third / "tickets/round_01.safetensors").about["options"] not in options


def test_a_colour_ticket_on_a_grey_picture_from_the_command_line(go):
    folder, _ = go("pruner=imp", "pruner.rounds=1", "name=found")
    _, used = go("image.name=camera", "pruner=ticket", f"pruner.path={folder}/tickets/round_01.safetensors")
    (only,) = used["rounds"]
    mask = Ticket.load(folder / "tickets/round_01.safetensors").mask
    head = mask["head.weight"]
    kept = mask.count - int(head.sum()) + head.numel() // 3
    assert only["sparsity"] == pytest.approx(1 - kept / (mask.total - head.numel() * 2 // 3), abs=1e-6)


@pytest.mark.parametrize("code", ["own", "shared"])
def test_a_ticket_of_several_pictures_is_an_ordinary_ticket(go, tmp_path, code):
    """Algorithm 2: one mask for all pictures; replayed on one of them and on another."""
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    for i, size in enumerate([(16, 16), (16, 16), (16, 16) if code == "shared" else (40, 24)]):
        Image.effect_noise(size, 40 + i).convert("RGB").save(tmp_path / "pictures" / f"p{i}.png")
    size = [] if code == "shared" else ["image.size=null"]
    folder, result = go("pruner=imp", "pruner.rounds=2", "image=folder", "image.path=pictures", "name=multi",
                        f"prior.code={code}", *size)
    assert set(result["rounds"][0]["images"]) == {"p0", "p1", "p2"}
    assert len(list((folder / "tickets").glob("round_*.safetensors"))) == 3
    _, used = go("pruner=ticket", f"pruner.path={folder}", "image.name=coffee")
    assert [r["sparsity"] for r in used["rounds"]] == [r["sparsity"] for r in result["rounds"]]
    assert used["tickets"][0]["found"]["label"] == "denoise-pictures-skip-imp"


def test_pictures_of_several_sizes_cannot_share_a_code(go, tmp_path):
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    for i, size in enumerate([(16, 16), (40, 24)]):
        Image.effect_noise(size, 40).convert("RGB").save(tmp_path / "pictures" / f"p{i}.png")
    with pytest.raises(InputError, match="prior.code=shared needs pictures of one size.*16x16, 40x24"):
        go("image=folder", "image.path=pictures", "prior.code=shared", "image.size=null")
