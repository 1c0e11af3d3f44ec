"""python -m lipfw.status: plans against real runs, a real grid in all five states, tables of 80 columns, a thousand."""
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lipfw import failed
from lipfw.cli import CONF
from lipfw.errors import InputError
from lipfw.files import read_jsonl
from lipfw.fit.restoration import Restoration
from lipfw.fit.rounds import IterativePruning
from lipfw.fit.stopping import last_before_rises
from lipfw.folder import members, run_folder
from lipfw.grid import journal
from lipfw.grid.state import State
from lipfw.lock import alone
from lipfw.mask import prunable
from lipfw.run import _build, run
from lipfw.status.__main__ import main, show
from lipfw.status.listed import listed
from lipfw.status.plan import chosen, plan
from lipfw.status.read import Reader
from lipfw.status.table import FULL, cut

TINY = ["trainer=smoke", "trainer.progress=false", "logger=none", "fit.steps=8", "fit.log_every=2", "image.size=16",
        "prior.channels=4", "prior.depth=2"]
