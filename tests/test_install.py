"""The wheel, installed in a fresh environment, runs from another folder, with the kernels compiled into it."""
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPILER = any(map(shutil.which, ("c++", "g++", "clang++")))
pytestmark = [pytest.mark.install,
              pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="not a checkout")]


def build_wheel(folder: Path, **environment) -> Path:
    """Build the wheel of a copy of the checkout, which must be left as it was."""
    source = folder / "source"
    leave = shutil.ignore_patterns(".git", ".venv", "runs", "dist", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, source, ignore=leave)
    before = {p for p in source.rglob("*") if "__pycache__" not in p.parts}
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)], cwd=source,
                   check=True, capture_output=True, env={**os.environ, **environment})
    assert {p for p in source.rglob("*") if "__pycache__" not in p.parts} == before
    (wheel,) = folder.glob("lipfw-*.whl")
    return wheel


def test_without_a_compiler_the_wheel_is_pure(tmp_path):
    wheel = build_wheel(tmp_path, PATH="", CXX="")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name.endswith("-py3-none-any.whl") and not any(n.endswith(".so") for n in names)
    assert {"lipfw/kernel/kernels.cpp", "lipfw/kernel/kernels.inc"} <= names    # for the first use


def test_the_wheel_runs_anywhere(tmp_path):
    wheel = build_wheel(tmp_path)
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    there = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True,
                           capture_output=True, text=True).stdout.strip()
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--prefix", str(tmp_path / "env"),
                    "--ignore-installed", str(wheel)], check=True, capture_output=True)
    # the dependencies are those of this environment, as plain paths: its own editable lipfw stays out
    (Path(there) / "dependencies.pth").write_text("\n".join({sysconfig.get_path("purelib"), *site.getsitepackages()}))
    (tmp_path / "empty").mkdir()

    def lipfw(*arguments):
        done = subprocess.run([python, "-m", "lipfw", *arguments], cwd=tmp_path / "empty", capture_output=True,
                              text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run([python, "-c", "import lipfw; print(lipfw.__file__)"], cwd=tmp_path / "empty", check=True,
                           capture_output=True, text=True, env={"PATH": "/usr/bin"}).stdout
    assert str(tmp_path / "env") in where
    assert "name: quickstart" in lipfw("-cn", "quickstart", "--cfg", "job")
    assert "compare.png" in lipfw("pruner=imp", "pruner.rounds=1", "trainer=smoke", "logger=none")
    assert list((tmp_path / "empty").glob("runs/default/*/tickets/round_01.safetensors"))
    assert "grid: 1 done" in lipfw("-m", "trainer=smoke", "logger=none", "hydra/launcher=local", "name=grid")
    assert "1 done" in subprocess.run([python, "-m", "lipfw.status", "runs/grid"], cwd=tmp_path / "empty", check=True,
                                      capture_output=True, text=True).stdout
    assert "picked" in subprocess.run([python, "-m", "lipfw.report", "runs/default"], cwd=tmp_path / "empty",
                                        check=True, capture_output=True, text=True).stdout
    if COMPILER and sys.platform != "win32":
        assert "-none-any" not in wheel.name
        code = "from lipfw.kernel.library import load; library = load(); print(library.lipfw_tile(), library._name)"
        cache = tmp_path / "cache"
        out = subprocess.run([python, "-c", code], cwd=tmp_path / "empty", check=True, capture_output=True, text=True,
                             env={"PATH": "", "XDG_CACHE_HOME": str(cache)}).stdout
        assert out.split()[1].startswith(str(tmp_path / "env")) and not cache.exists()
    script = python.parent / "lipfw"
    assert "pruner" in subprocess.run([script, "--help"], check=True, capture_output=True, text=True).stdout
