"""What restoring a picture leaves behind in the program that asked for it: nothing."""
import logging
import re
import subprocess
import sys
import warnings

from lipfw.fit.trainer import quiet

PROGRAM = """
import logging, os, random, signal, threading, warnings
import lipfw
random.seed(3)
drawn = random.getstate()
restore = lipfw.restore         # imports all that it needs, and what those packages register is theirs
assert random.getstate() == drawn

import numpy as np
import torch

def state():
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    return {
        "filters": list(warnings.filters), "shown": (warnings.showwarning, warnings.formatwarning),
        "loggers": {g.name: (g.level, g.propagate, g.disabled, list(g.handlers), list(g.filters))
                    for g in loggers if isinstance(g, logging.Logger)},
        "random": (random.getstate(), torch.get_rng_state().tolist(), str(np.random.get_state())),
        "torch": (torch.get_num_threads(), torch.get_num_interop_threads(), torch.get_default_dtype(),
                  torch.get_default_device(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(),
                  torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()),
        "process": (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), os.getcwd(), dict(os.environ),
                    threading.active_count(), np.geterr())}

warnings.filterwarnings("error", "mine")
logging.getLogger("lightning_fabric").setLevel(17)
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.manual_seed(7), np.random.seed(7)
before = state()
restore(np.full((16, 16), 0.5, np.float32), steps=2, channels=4, depth=2, device="cpu")
after = state()
loggers = after["loggers"]      # those made meanwhile are as the first moment has them
assert all(v[0] == 0 and not v[3] for name, v in loggers.items() if name not in before["loggers"])
after["loggers"] = {name: v for name, v in loggers.items() if name in before["loggers"]}
assert [name for name in before if before[name] != after[name]] == []
print("as it was")
"""


def test_the_program_is_left_as_it_was(tmp_path):
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "as it was\n", ""), done.stderr


def test_fits_side_by_side_and_filters_that_others_set_meanwhile():
    advert = "6 of them: does not have many workers"
    mine = ("ignore", re.compile("mine", re.IGNORECASE), Warning, None, 0)
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = logger.level
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        one, two = quiet(), quiet()
        one.__enter__(), two.__enter__()
        one.__exit__(None, None, None)
        assert logger.level == logging.WARNING
        warnings.warn(advert, stacklevel=1)
        with warnings.catch_warnings():         # another thread's, which ends when ours has
            warnings.warn(advert, stacklevel=1)
            two.__exit__(None, None, None)
            assert warnings.filters == before
        assert warnings.filters == before and logger.level == level and not shown
        with quiet():
            warnings.filterwarnings("ignore", "mine")
        assert warnings.filters == [mine, *before]
        warnings.warn(advert, stacklevel=1)
        assert [str(w.message) for w in shown] == [advert]
