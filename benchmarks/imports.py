"""How long does it take until lipfw is there? Fresh interpreters; `import torch` is 1, smaller is better."""
import subprocess
import sys
from collections.abc import Iterator
from statistics import median

from benchmarks.row import Row
from benchmarks.setting import Setting
from benchmarks.timing import in_turns, ratio, seconds_of
from benchmarks.worker import ROOT

COMMANDS = {"import torch": ["-c", "import torch"], "an empty interpreter": ["-c", ""],
            "import lipfw": ["-c", "import lipfw"], "import lipfw.cli": ["-c", "import lipfw.cli"],
            "import lipfw.run": ["-c", "import lipfw.run"], "python -m lipfw --help": ["-m", "lipfw", "--help"]}


def measure(setting: Setting) -> Iterator[Row]:
    """Start interpreters in turns."""
    def start(arguments: list[str]) -> float:
        command = [sys.executable, *arguments]
        return seconds_of(lambda: subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL), "cpu")

    commands = {n: a for n, a in COMMANDS.items() if not (setting.quick and n == "import lipfw.run")}
    samples = in_turns({name: lambda a=a: start(a) for name, a in commands.items()}, 1 if setting.quick else 5)
    torch = samples["import torch"]
    for name, times in samples.items():
        yield Row(name, "import torch", ratio(times, torch), {"ms": 1000 * median(times)})
