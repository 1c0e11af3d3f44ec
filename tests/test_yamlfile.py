"""Configs of the user's that can't be read: one line with the file, the place and what is wrong."""
import re

import forked
import pytest
from hydra import compose, initialize_config_dir

from lipfw.configs import CONF, EXPERIMENTS
from lipfw.errors import InputError
from lipfw.grid.cells import opened
from lipfw.plan.__main__ import main as plan
from lipfw.yamlfile import check, checked

HEAD = b"defaults: [config, _self_]\n"
STUDY = b"defaults: [study, _self_]\nstudy:\n"


def composed(folder, content, *words):
    (folder / "mine.yaml").write_bytes(content)
    with opened(["--config-dir", str(folder), "-cn", "mine", *words], CONF, EXPERIMENTS) as (cells, compose):
        return [compose(cell).config for cell in cells]


@pytest.mark.parametrize(("content", "said"), [
    (HEAD + b"seed: [1, 2\nname: x\n", ", line 3, column 5: expected ',' or ']', but got ':'; the [ of line 2 is not "
                                       "closed before"),
    (HEAD + b"fit: {steps: 3", ", line 2, ... the { of line 2 is not closed"),
    (HEAD + b"name: 'x\nseed: 1\n", ", line 3, at the end: found unexpected end of stream; the quote of line 2 is not"),
    (HEAD + b"seed: 1\n   name: x\n", ", line 3, column 8: mapping values are not allowed here; indent lines of one"),
    (HEAD + b"fit:\n\tsteps: 3\n", ", line 3, column 1: ... YAML is indented by spaces, never by tabs"),
    (HEAD + b"fit:\n  lr: 1\n steps: 3\n", ", line 4, column 2: expected <block end> ... indent lines of one block"),
    (HEAD + b"name: x\nname: y\n", ", line 3, column 1: found duplicate key name; give it once"),
    (HEAD + b"---\nname: x\n", ", line 2, column 1: but found another document; a config is one"),
    (HEAD + b"name: caf\xe9\n", ", line 2: the byte 0xe9 is no UTF-8; save the file as UTF-8"),
    ("defaults: [config]".encode("utf-16"), ", line 1: the byte 0xff is no UTF-8"),
    (HEAD + b"name: 'a\0b'\n", ", line 2: the character #x0000 has no place in YAML; remove it"),
    (HEAD + b"name: ${foo\n", ": name: no viable alternative at input '${foo'; is each ${...} closed?"),
    (HEAD + b"seed: !!int x\n", ": invalid literal for int"),
    (b"a: " + b"[" * 600, " is nested too deeply"),
    (b"# mine\n- a\n- b\n", ", line 2: a config is lines of NAME: VALUE, and this file is a list"),
    (b"hello\n", ", line 1: a config is lines of NAME: VALUE, and this file is a single value"),
    (b"5\n", ", line 1: a config is lines of NAME: VALUE, and this file is a single value"),
    (HEAD + b"1: 2\n", ", line 2: an option's name is a text, and '1' is none"),
    (HEAD + b"fit:\n  lr: 1\n  ~: 3\n", ", line 4: an option's name is a text, and '~' is none"),
    (HEAD + b"? [a]\n: 1\n", ", line 2: an option's name is a text"),
    (b"defaults: config\n", ", line 1: defaults must be a list, e.g. defaults: [config, _self_]"),
    (b"seed: 1\ndefaults:\n", ", line 2: defaults must be a list"),
    (b"defaults: [mine, _self_]\n", ", line 1: defaults names this very file; rename it"),
], ids=lambda v: repr(v[-20:]) if isinstance(v, bytes) else "")
def test_what_is_no_config_is_told_with_its_place(tmp_path, content, said):
    with pytest.raises(InputError) as told:
        composed(tmp_path, content)
    line = str(told.value)
    assert line.startswith(f"{tmp_path / 'mine.yaml'}") and "\n" not in line
    assert all(part in line for part in said.split(" ... "))


@pytest.mark.parametrize(("content", "said"), [
    (b"", "is missing: this config does not start from the shipped one; begin it with defaults: [config, _self_]"),
    (HEAD + b"study:\n", "study: is empty; it has at least scales and stages"),
    (HEAD + b"study: {}\n", "study: is empty; it has at least scales and stages"),
    (HEAD + b"study: [a]\n", "study: must be a mapping"),
    (HEAD + b"study: {scales: {tiny: ''}}\n", "study: without scale=; begin the config with defaults: [study, _self_]"),
    (STUDY + b"  scales: [tiny]\n", "study.scales must name at least one of them, e.g. scales: {"),
    (STUDY + b"  scales: {tiny: ''}\n  stages:\n", "study.stages must name at least one of them, e.g. stages: {"),
    (STUDY + b"  scales: {tiny: ''}\n  stages: {found: }\n", "study.stages.found must say what is run, e.g. found: {"),
    (STUDY + b"  scales: {tiny: 3}\n  stages: {a: {run: ''}}\n", "study.scales.tiny must be a text of options, e.g."),
    (STUDY + b"  scales: {tiny: ''}\n  stages: {a: {run: 4}}\n", "study.stages.a.run must be a text of options, e.g."),
], ids=lambda v: repr(v[-20:]) if isinstance(v, bytes) else "")
def test_a_config_that_says_too_little_is_told(tmp_path, content, said):
    with pytest.raises(InputError, match=re.escape(said)):
        composed(tmp_path, content)


def test_a_file_of_a_group_too_and_others_are_read_as_before(tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task/mine.yaml").write_text("a: [1\n")
    (tmp_path / "task/flat.yaml").write_text("- a\n")
    for name, place in {"mine": "line 1, at the end", "flat": "line 1: a config is lines"}.items():
        with pytest.raises(InputError, match=f"task/{name}.yaml, {place}"):
            composed(tmp_path, HEAD, f"task={name}")
    assert composed(tmp_path, "\ufeff".encode() + HEAD + "name: ä\n".encode())[0].name == "ä"
    with pytest.raises(InputError, match="can't be read"):
        check(tmp_path)


def test_hydra_is_left_as_it_was(tmp_path):
    (tmp_path / "mine.yaml").write_text("- a\n")
    with pytest.raises(InputError), checked(), initialize_config_dir(str(tmp_path), version_base="1.3"):
        compose("mine")
    with pytest.raises(Exception, match="must be a") as told, initialize_config_dir(str(tmp_path), version_base="1.3"):
        compose("mine")
    assert not isinstance(told.value, InputError)


def test_the_command_line_and_the_plan_tell_it_in_one_line(tmp_path, capsys):
    (tmp_path / "task").mkdir()
    (tmp_path / "task/broken.yaml").write_text("a: [1\n")       # not chosen: only searched for a misspelt option
    (tmp_path / "mine.yaml").write_bytes(HEAD + b"seed: [1\n")
    done = forked.run("lipfw", "--config-dir", str(tmp_path), "-cn", "mine", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith(f"lipfw: {tmp_path / 'mine.yaml'}, line 2, at the end")
    assert done.stderr.count("\n") == 1 and not done.stdout and not (tmp_path / "runs").exists()
    assert plan(["--config-dir", str(tmp_path), "-cn", "mine"]) == 1
    told = capsys.readouterr()
    assert f"{tmp_path / 'mine.yaml'}, line 2" in told.err and told.err.count("\n") == 1 and not told.out
    assert plan(["--config-dir", str(tmp_path), "task.sigmaa=1"]) == 1
    assert "task.sigmaa is no option; did you mean task.sigma?" in capsys.readouterr().err
    for content, cause in ((b"task: [1]\n", "merge"), (b"name: ${nope}\n", "name: Interpolation key 'nope' not found")):
        (tmp_path / "mine.yaml").write_bytes(HEAD + content)
        assert plan(["--config-dir", str(tmp_path), "-cn", "mine"]) == 1
        told = capsys.readouterr().err
        assert cause in told and told.count("\n") == 1
