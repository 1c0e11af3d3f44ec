"""What a result was measured on and with."""
import datetime
import platform
import subprocess
from pathlib import Path

import torch

from benchmarks.setting import Setting
from benchmarks.worker import ROOT
from lipfw import __version__


def about(setting: Setting) -> dict[str, str]:
    """Return machine, versions, date and commit as text."""
    out = {"machine": f"{_model()}, {setting.cores} cores, {torch.backends.cpu.get_cpu_capability()}",
           "threads": str(setting.threads), "torch": torch.__version__, "lipfw": __version__,
           "python": platform.python_version(), "commit": _commit(),
           "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")}
    if setting.device == "cuda":
        out["gpu"] = torch.cuda.get_device_name()
        out["TF32 convolutions"] = str(torch.backends.cudnn.allow_tf32)
        out["TF32 products"] = str(torch.backends.cuda.matmul.allow_tf32)
    return out


def _model() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] \
        if info.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    """Return the commit of the checkout, with a + if files differ from it."""
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + "+" * bool(git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return "no checkout"
