"""Which GPUs this machine has, without importing torch."""
import os
import subprocess
from pathlib import Path


def visible() -> list[str]:
    """Return what CUDA_VISIBLE_DEVICES is to be for each GPU that this process may use; [] if there is none."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        every = [g.strip() for g in named.split(",")]
        return every[:next((i for i, g in enumerate(every) if g in ("", "-1", "NoDevFiles")), len(every))]
    try:
        listed = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True,
                                text=True, timeout=30, check=True).stdout.split()
        return [g for g in listed if g.isdecimal()]
    except (OSError, subprocess.SubprocessError):
        try:
            return [str(i) for i in range(len(list(Path("/proc/driver/nvidia/gpus").iterdir())))]
        except OSError:
            return []
