"""The benchmarks still run: every one of them, with tiny networks. What they measure so means nothing."""
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import forked
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parents[1]
NAMES = ("step", "sparse", "imp", "throughput", "memory", "peak", "imports", "overhead", "generators", "grid")
pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks" / "__main__.py").is_file(), reason="not a checkout")


@pytest.fixture(autouse=True)
def checkout(monkeypatch):
    """Make the package importable: it is not installed."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """Run them all once, with commands of lipfw that need not import torch first; gives the folder of the results."""
    out = tmp_path_factory.mktemp("benchmarks")
    forks = SimpleNamespace(run=lambda command, cwd, env, **_: forked.run(*command[2:], cwd=cwd, env=env))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        from benchmarks import __main__, command, grid

        patch.setattr(command, "subprocess", forks)
        patch.setattr(grid, "subprocess", forks)
        patch.setattr(sys, "argv", ["benchmarks", "--quick", "--out", str(out), "--threads", "1"])
        assert __main__.main() == 0
    return out


@pytest.mark.parametrize("name", NAMES)
def test_each_measures_something(out, name):
    result = json.loads((out / "results.json").read_text())[name]
    assert result["error"] is None and result["about"]["quick"] is True
    measured = [row for row in result["rows"] if row["ratio"] or row["numbers"]]
    assert measured
    for row in measured:
        assert all(v >= 0 for v in row["numbers"].values())
        assert row["ratio"] is None or 0 < row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
    assert all(row["note"] for row in result["rows"] if row not in measured)    # what was not measured says why


def test_the_page_starts_with_the_goals(out):
    page = (out / "page.md").read_text()
    assert "numbers mean nothing" in page and page.index("| dense, 128 px |") < page.index("## step")
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == list(NAMES)


def test_goals_are_answered_by_rows_that_exist():
    from benchmarks.goals import GOALS

    source = "".join(p.read_text() for p in (ROOT / "benchmarks").glob("*.py") if p.name != "goals.py")
    assert all(f'"{goal.key}"' in source for goal in GOALS)


def test_operations_are_those_that_torch_counts():
    from benchmarks.peak import operations
    from benchmarks.published import nested
    from lipfw.mask import Mask

    network = nested(3, 6, 3)
    with FlopCounterMode(display=False) as counter:
        network(torch.rand(1, 32, 32, 32)).mean().backward()
    assert operations(network, 32, Mask.ones(network)) == counter.get_total_flops()


def test_the_published_network_takes_the_mask_of_lipfw():
    """The masked nested network computes what lipfw's does with its weights set to zero."""
    from benchmarks.published import nested
    from lipfw.mask import keep_top, prunable
    from lipfw.prior.skip import Skip

    network = Skip(32, 3, channels=6, depth=3)
    mask = keep_top({n: torch.rand_like(w) for n, w in prunable(network).items()}, 1000)
    twin = nested(3, 6, 3)
    for a, b in zip(twin.parameters(), network.parameters(), strict=True):
        a.data.copy_(b.data)
    masked = nested(3, 6, 3, mask)
    source = dict(twin.named_parameters())
    for name, p in masked.named_parameters():
        p.data.copy_(source[name.replace("_orig", "")].data)
    mask.apply(network)
    x = torch.rand(1, 32, 32, 32)
    torch.testing.assert_close(masked(x), network(x).sigmoid(), rtol=0, atol=1e-5)


def test_tickets_of_two_kernels_are_compared(tmp_path):
    """Seed by seed: a run with itself overlaps wholly and differs by nothing."""
    tiny = ["pruner=imp", "pruner.rounds=1", "trainer=smoke", "logger=none", f"out={tmp_path}", "name=a"]
    runs = str(tmp_path / "a")
    for command in (["lipfw", *tiny, "-m", "seed=0..1"], ["benchmarks.agree", runs, runs]):
        done = forked.run(*command, cwd=ROOT)
        assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| 1 |")]
    assert len(rows) == 1 and float(rows[0][7]) == 1.0 and float(rows[0][8]) == pytest.approx(0.667, abs=1e-3)
    assert "2 seeds" in done.stdout and "+0.000 dB, largest 0.000 dB" in done.stdout
    nothing = forked.run("benchmarks.agree", str(tmp_path), str(tmp_path), cwd=ROOT)
    assert nothing.returncode and "must hold finished runs" in nothing.stderr
