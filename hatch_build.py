"""Puts the compiled CPU kernels into the wheel if there is a compiler; without one the wheel is pure Python.

An editable install gets none: there the kernels are compiled at first use, as they are wherever the wheel has none that
fits.
"""
import importlib.util
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags


class KernelHook(BuildHookInterface):
    """Compiles into a temporary folder, so that the checkout stays as it is."""

    def initialize(self, version: str, build_data: dict) -> None:
        if version == "editable":
            return
        build = _load(Path(self.root, "src", "lipfw", "kernel", "build.py"))
        self.folder = tempfile.TemporaryDirectory()
        library = Path(self.folder.name, build.file_name(build.BORROWED))
        try:
            build.compile_library(library, build.BORROWED)
        except build.Unavailable as e:
            self.app.display_warning(f"a wheel without compiled kernels: {e}")
            return
        library.chmod(0o755)
        platform = next(t.platform for t in sys_tags() if not t.platform.startswith(("manylinux", "musllinux")))
        build_data["force_include"][str(library)] = f"lipfw/kernel/{library.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"     # a plain C interface: any Python of this platform

    def finalize(self, version: str, build_data: dict, artifact_path: str) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


def _load(path: Path):
    spec = importlib.util.spec_from_file_location("kernel_build", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
