"""The wheel, installed in a fresh environment, runs from another folder."""
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.install
@pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="not a checkout")
def test_the_wheel_runs_anywhere(tmp_path):
    source = tmp_path / "source"        # a copy: building must not leave anything in the checkout
    leave = shutil.ignore_patterns(".git", ".venv", "runs", "dist", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, source, ignore=leave)
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)], cwd=source,
                   check=True, capture_output=True)
    (wheel,) = tmp_path.glob("lipfw-*.whl")
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
    assert "picked" in subprocess.run([python, "-m", "lipfw.report", "runs/default"], cwd=tmp_path / "empty",
                                        check=True, capture_output=True, text=True).stdout
    script = python.parent / "lipfw"
    assert "pruner" in subprocess.run([script, "--help"], check=True, capture_output=True, text=True).stdout
