"""The last lines of a run."""
from pathlib import Path

import pytest

from lipfw.summary import closing

LAST = "runs/x/: restored.png, compare.png, rounds.jsonl, result.json"


def result(**changes):
    picked = (25.55, 25.36, 25.75)
    rounds = [{"round": r, "sparsity": s, "psnr_picked": p} for r, (s, p) in enumerate(zip((0, 0.2, 0.36), picked,
                                                                                           strict=True))]
    return {"best_round": 1, "rounds": rounds, "degraded": {"psnr": 20.79}, "config": {"pruner": {}}, **changes}


def lines(**changes):
    first, *between, last = closing(Path("runs/x"), result(**changes)).split("\n")
    assert last == LAST
    assert first.startswith("* round ")
    return [first, *between]


def ticket(round_, **changes):
    found = {"label": "denoise-baby-skip-imp", "options": "0a1b2c3d", "seed": "4", "run": "denoise-baby-skip-imp-s4-01",
             "round": str(round_), "sparsity": 0.5}
    return {"file": f"tickets/round_{round_:02d}.safetensors", "found": found | changes}


@pytest.mark.parametrize("oracle", [{}, {"oracle_round": None}, {"oracle_round": 1}])
def test_the_choice_alone_where_there_is_no_better_round(oracle):
    assert lines(**oracle) == ["* round 1, chosen without the clean picture: 20.0% sparse, 20.79 -> 25.36 dB"]


@pytest.mark.parametrize("oracle, told", [(2, "2 (36.0% sparse, 25.75 dB)"), (0, "0 (0.0% sparse, 25.55 dB)")])
def test_the_round_that_the_clean_picture_would_choose(oracle, told):
    assert lines(oracle_round=oracle)[1:] == [f"best round by the clean picture: {told}"]


def test_a_replay_tells_which_tickets_it_used():
    found = "found on denoise-baby-skip by imp, seed 4, in denoise-baby-skip-imp-s4-01"
    config = {"pruner": {"init": "fresh"}}
    assert lines(tickets=[ticket(0), ticket(1), ticket(2)], config=config)[1:] == [
        f"tickets of rounds 0..2, {found}; pruner.init=fresh"]
    assert lines(tickets=[ticket(7)])[1:] == [f"ticket of round 7, {found}"]
    two = lines(tickets=[ticket(7), ticket(8, seed="5", run="other")], oracle_round=0)[1:]
    assert len(two) == 3 and two[2].endswith("seed 5, in other")


@pytest.mark.parametrize("tickets", [None, [], [{"file": "x", "found": {}}]])
def test_a_run_that_does_not_tell_its_tickets(tickets):
    assert len(lines(tickets=tickets)) == 1
