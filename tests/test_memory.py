"""The estimate of memory against what a step really takes, and the refusal."""
import subprocess
import sys

import pytest
import torch

from lipfw.errors import InputError
from lipfw.fit import memory
from lipfw.prior import decoder, skip


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read the Linux way")
def test_the_estimate_is_near_a_real_step():
    """In a process of its own: what its peak grows by in two steps is between half and twice the estimate."""
    code = ("import resource, torch; torch.set_num_threads(1)\n"
            "from lipfw.prior.skip import build; from lipfw.fit.memory import bytes_needed\n"
            "prior = build([(3, 480, 400)], channels=48)\n"
            "before = int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize()  # now, not the peak\n"
            "for i in range(2): prior.zero_grad(); prior(0, i).mean().backward()\n"
            "took = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before\n"
            "print(bytes_needed(prior), took)")      # after the steps: it leaves memory behind that they would use
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    need, took = map(float, done.stdout.split())
    assert took / 2 < need < took * 2


def test_it_grows_with_pixels_and_leaves_the_network_alone():
    small, large = (skip.build([(3, n, n)], channels=8, depth=3) for n in (256, 512))
    before = {k: v.clone() for k, v in large.network.state_dict().items()}
    assert memory.bytes_needed(large) == pytest.approx(4 * memory.bytes_needed(small), rel=0.05)
    assert all(torch.equal(v, before[k]) for k, v in large.network.state_dict().items())
    assert memory.bytes_needed(decoder.build([(3, 512, 512)], channels=8)) > 0


def test_too_large_is_refused(monkeypatch):
    prior = skip.build([(3, 64, 64), (3, 300, 400)], channels=8, depth=3)
    memory.check_memory(prior, "cpu")
    monkeypatch.setattr(memory, "bytes_needed", lambda prior: 1e15)
    with pytest.raises(InputError, match="400x300 pixels needs about 1000000 GB"):
        memory.check_memory(prior, "cpu")
    memory.check_memory(skip.build([(3, 64, 64)], channels=8, depth=3), "cpu")
