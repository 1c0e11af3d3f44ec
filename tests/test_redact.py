"""Secrets: canaries in the environment, the configs and the command line are found in nothing that a run leaves."""
import json
import os
import subprocess
import sys
import traceback
import types
from pathlib import Path

import forked
import pytest
import yaml
from hydra import compose, initialize_config_dir

from lipfw import folder
from lipfw.cli import CONF
from lipfw.errors import InputError
from lipfw.files import write_json
from lipfw.redact import literals, secret, text, tree
from lipfw.tracking import open_logger

TINY = ["trainer=smoke", "image.size=16", "prior.channels=4", "prior.depth=2", "fit.steps=4", "fit.log_every=2",
        "pruner=imp", "pruner.rounds=1"]
CANARY = "CANARY"
VARIABLES = {"WANDB_API_KEY": f"{CANARY}0123456789012345678901234567890123456", "HF_TOKEN": f"hf_{CANARY}",
             "AWS_SECRET_ACCESS_KEY": f"/{CANARY}/a+b", "RAY_AUTH_TOKEN": f"{CANARY}ray", "PGPASSWORD": CANARY[:6]}


def leaks(place: Path) -> list[str]:
    return [str(p.relative_to(place)) for p in place.rglob("*") if p.is_file() and CANARY.encode() in p.read_bytes()]


def lipfw(place: Path, *words: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")} | VARIABLES
    return forked.run("lipfw", *TINY, *words, cwd=place, env=environment | {"HOME": str(place)})


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep with W&B, started in a checkout whose remote holds a token; gives its folder and what it printed."""
    place, own = tmp_path_factory.mktemp("swept"), tmp_path_factory.mktemp("own")
    (own / "logger").mkdir()
    (own / "logger" / "mine.yaml").write_text(      # an option of one's own: it tells whether the value arrives
        "defaults: [wandb]\nsettings: {api_key: '${oc.env:WANDB_API_KEY}'}\ntags_token: {sub: " + CANARY + "yaml}\n"
        "_target_: tests_of_secrets.Logger\n")
    (own / "tests_of_secrets.py").write_text(
        "from pytorch_lightning.loggers import WandbLogger\n"
        "class Logger(WandbLogger):\n"
        "    def __init__(self, settings, tags_token, note, password, headers, **options):\n"
        "        told = settings.api_key, tags_token.sub, note, password, headers.Authorization\n"
        f"        assert all('{CANARY}' in t for t in told), told\n"
        "        super().__init__(settings=settings, **options)\n")
    for command in (["init", "-q"], ["remote", "add", "origin", f"https://{CANARY}remote@example.org/x.git"],
                    ["-c", "user.email=a", "-c", "user.name=a", "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *command], cwd=place, check=True)
    os.environ["PYTHONPATH"], before = f"{own}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", \
        os.environ.get("PYTHONPATH", "")
    try:
        done = lipfw(place, "--config-dir", str(own), "logger=mine", "+logger.note='${oc.env:PGPASSWORD}'",
                     f"+logger.password={CANARY}typed", f"+logger.headers={{Authorization:'Bearer {CANARY}'}}",
                     "-m", "seed=0..0", "hydra/launcher=local")
    finally:
        os.environ["PYTHONPATH"] = before
    assert done.returncode == 0, done.stderr
    return place, done.stdout + done.stderr


def test_nothing_that_a_run_leaves_or_prints_holds_a_secret(swept):
    place, printed = swept
    assert CANARY not in printed
    assert len(list(place.glob("runs/default/*/wandb/offline-run-*/run-*.wandb"))) == 1
    assert leaks(place) == [".git/config"]


def test_the_rest_is_told_as_ever(swept):
    place, _ = swept
    for path in place.glob("runs/default/*/result.json"):
        result = json.loads(path.read_text())
        logger = result["config"]["logger"]
        assert logger["settings"]["api_key"] == logger["password"] == logger["headers"]["Authorization"] == "***"
        assert logger["project"] == "lipfw" and result["config"]["image"]["name"] == "astronaut"
        assert yaml.safe_load((path.parent / "config.yaml").read_text()) == result["config"]
        assert "+logger.note='\"'\"'${oc.env:PGPASSWORD}" in result["command"]     # a name is no secret
        assert "+logger.password=***" in result["command"] and "seed=0..0" in result["command"]
    sweep = yaml.safe_load((place / "runs/default/multirun.yaml").read_text())
    assert sweep["logger"]["settings"]["api_key"] == "${oc.env:WANDB_API_KEY}"
    assert "+logger.password=***" in sweep["hydra"]["overrides"]["task"]
    assert "+logger.password=***" in (place / "runs/default/grid.jsonl").read_text()
    assert "round 1" in next(place.glob("runs/default/logs/*.log")).read_text()


def test_errors_and_printed_configs_hold_none(tmp_path):
    done = lipfw(tmp_path, f"name=../{VARIABLES['HF_TOKEN']}")
    assert done.returncode == 1 and "inside out=, got '../***'" in done.stderr
    done = lipfw(tmp_path, "--cfg", "job", "--resolve", "+logger.a=${oc.env:HF_TOKEN}", f"+logger.token={CANARY}")
    assert done.returncode == 0 and "  a: ***" in done.stdout and CANARY not in done.stdout
    assert not leaks(tmp_path)


def test_a_logger_that_refuses_its_key_does_not_tell_it(tmp_path, monkeypatch):
    def refuses(key, **options):
        raise ValueError(f"no key is {key['api_key']}")

    monkeypatch.setitem(sys.modules, "tests_of_secrets", types.SimpleNamespace(refuses=refuses))
    cfg = config("+logger.key={api_key: CANARY}", "logger._target_=tests_of_secrets.refuses")
    with pytest.raises(InputError, match=r"can't start \(.*no key is \*\*\*") as e:
        open_logger(cfg, folder.told(cfg), tmp_path)
    assert CANARY not in str(e.value) and CANARY not in "".join(traceback.format_exception(e.value))


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*TINY, "logger=none", *overrides])


def test_a_loggers_secret_makes_no_other_run_and_no_folder_tells_one(monkeypatch):
    plain = folder.run_folder(config())
    for value in ("one", "another-token-0123"):
        monkeypatch.setenv("SOME_TOKEN", value)
        assert folder.run_folder(config("+logger.extra=${oc.env:SOME_TOKEN}", f"+logger.api_key={value}")) == plain
        assert value not in str(folder.run_folder(config("+image.extra=${oc.env:SOME_TOKEN}")))


def test_a_secret_in_a_path_does_not_change_what_lies_there(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "0123456789abc")
    names = []
    for name, data in (("0123456789abc", b"1"), ("other", b"1"), ("0123456789abc", b"2")):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "x.png").write_bytes(data)
        names.append(folder.run_folder(config("image=file", f"image.path={tmp_path / name / 'x.png'}")))
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize("name, is_one", [
    ("logger.api_key", True), ("apiKey", True), ("HF_TOKEN", True), ("accessToken", True), ("GPG_KEY", True),
    ("x_extra_http_headers", True), ("PGPASSWORD", True), ("db.passwd", True), ("GOOGLE_CREDENTIALS", True),
    ("Authorization", True), ("AWS_ACCESS_KEY_ID", True), ("private_key", True), ("RAY_AUTH_MODE", True),
    ("key", False), ("sort_key", False), ("author", False), ("tokenizer", False), ("TOKENIZERS_PARALLELISM", False),
    ("cls_token", True), ("token_mixing", False), ("MODAL_TOKEN_ID", True), ("MYSQL_PWD", True), ("PWD", False),
    ("pass_", False), ("seed", False), ("secretary", False), ("monkey", False), ("PATH", False)])
def test_names_of_secrets(name, is_one):
    assert secret(name) is is_one


def test_no_option_of_ours_is_taken_for_a_secret():
    def names(node):
        for k, v in node.items():
            yield str(k)
            yield from names(v) if isinstance(v, dict) else ()

    for path in CONF.rglob("*.yaml"):
        assert not [n for n in names(yaml.safe_load(path.read_text()) or {}) if secret(n)], path


@pytest.mark.parametrize("told, shown", [
    ("sql://me:p@ss@host/a@b", "sql://***@host/a@b"),
    ("a token=abc b", "a token=*** b"), ("+x.api_key=a b, c", "+x.api_key=***"), ("token=null", "token=null"),
    ("prior.max_tokens=512", "prior.max_tokens=512"), ("password=12345678", "password=***"),
    ("+x.token=${oc.env:A_TOKEN}", "+x.token=${oc.env:A_TOKEN}"), ("a=${oc.env:A_TOKEN,b}", "a=${oc.env:A_TOKEN,***}"),
    ("x={token: abc, n: 1}", "x={token: ***, n: 1}"), ("Authorization: Bearer abc", "Authorization: ***"),
    ("'headers': {'a': 'b c'}, x", "'headers': ***, x"), ("https://me:pw@host/x", "https://***@host/x"),
    ("https://host/a@b", "https://host/a@b"), ("image.path=/a/b.png", "image.path=/a/b.png"),
    ("see value-of-it here", "see *** here"), ("a" * 100_000, "a" * 100_000), ("a=" * 1000, "a=" * 1000)])
def test_texts(told, shown, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "value-of-it")
    assert text(told) == shown and text(shown) == shown


def test_values_that_say_nothing_stay(monkeypatch, tmp_path):
    monkeypatch.setenv("SOME_TOKEN", "true")
    monkeypatch.setenv("SOME_CREDENTIALS", str(tmp_path))       # where one lies
    c = {"path": f"{tmp_path}/x", "on": "true", "token": None, "auth": {"_target_": "a.B", "n": 3, "name": "me"}}
    assert tree(c) == {**c, "auth": {"_target_": "a.B", "n": 3, "name": "***"}}
    assert list(literals(c)) == ["me"]
    assert tree({"a": ["x", {"b": "y"}]}, {"a": "${oc.env:SOME_TOKEN}"}) == {"a": ["***", {"b": "***"}]}


def test_what_is_written_as_json_tells_none(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "value-of-it")
    write_json(tmp_path / "failed.json", {"error": ["can't use value-of-it"], "step": 3})
    assert json.loads((tmp_path / "failed.json").read_text()) == {"error": ["can't use ***"], "step": 3}
