"""Who may import whom, and which libraries stay where: the architecture, kept true."""
import ast
from pathlib import Path

import lipfw

ROOT = Path(lipfw.__file__).parent
BASE = {"streams", "problem", "mask", "ticket", "measures", "files", "errors", "listing", "lock", "interrupt", "redact",
        "bounded", "words", "imported", "spectrum", "zoo", "redraw", "skips"}
TOP = {"run", "batch", "job", "restoring", "training", "classifying", "records", "recorder", "summary", "tracking",
       "failed", "api", "protocol", "search", "report", "tickets", "terminal"}
PARTS = {"image", "task", "prior", "pruner", "kernel", "fit", "folder", "gan"}
HOST = {"cores", "malloc"}      # what a program may do to its process and a library may not
ALLOWED = {     # layer -> the lipfw modules it may import, besides itself
    **{name: BASE for name in BASE},
    "image": BASE, "gan": BASE, "prior": BASE | {"gan"}, "pruner": BASE,
    "task": BASE | {"image"},                                       # a task is a function of a picture
    "classical": {"errors"},                                        # arrays to arrays
    "kernel": BASE, "cores": set(), "malloc": set(),
    "fit": BASE | {"prior", "pruner", "kernel", "gan", "classical"},
    "dashboard": {"errors", "files", "terminal"},
    "folder": {"errors", "listing", "redact", "skips"}, "argv": {"errors", "yamlfile"},
    **{name: BASE | TOP | PARTS for name in TOP},
    "protocol": BASE | PARTS | {"configs"},      # where the task's YAML lies
    "failed": BASE | {"mistakes"}, "run": BASE | TOP | PARTS | HOST,
    # no torch, so that a sweep skips what is done in no time
    "grid": {"argv", "configs", "errors", "cores", "failed", "files", "folder", "interrupt", "lock", "mistakes",
             "redact", "words", "yamlfile"},
    "plan": BASE | TOP | PARTS | HOST | {"configs", "grid", "mistakes"},
    # no torch here either: it starts in a moment and looks again and again
    "status": {"errors", "failed", "grid", "listing", "lock", "pruner", "report", "terminal", "words",
               "zoo"},
    "configs": {"errors"}, "yamlfile": {"errors"}, "mistakes": {"configs", "errors", "interrupt", "yamlfile"},
    "cli": {"argv", "configs", "cores", "errors", "folder", "grid", "interrupt", "mistakes", "redact", "run",
            "yamlfile"},
    "__main__": {"cli"}, "__init__": set(),
}
LIBRARIES = {   # library -> the layers that may import it
    "hydra": {"grid", "plan", "run", "restoring", "training", "classifying", "tracking", "cli", "mistakes",
              "yamlfile"},
    "omegaconf": {"grid", "plan", "run", "restoring", "training", "classifying", "tracking", "cli", "folder",
                 "mistakes", "report", "protocol", "yamlfile"},
    "pytorch_lightning": {"fit", "run", "job", "records", "recorder", "training", "tracking", "api"},
    "torchmetrics": {"fit"}, "wandb": {"dashboard"}, "wandb_workspaces": {"dashboard"},
    "skimage": {"image", "classical"}, "pywt": {"classical"},
    "rich": {"fit", "run", "job", "restoring", "training", "classifying", "batch", "summary", "report", "tickets",
             "terminal", "plan", "status"},
    "PIL": {"image", "task", "classical", "report"}, "matplotlib": {"report"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {f"{node.module}.{a.name}" for a in node.names} if node.module == "lipfw" else {node.module}
    return found


def layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_layers_import_downwards():
    files = sorted(ROOT.rglob("*.py"))
    assert len(files) > 30
    for path in files:
        own = layer(path)
        assert own in ALLOWED, f"{path} belongs to no layer: name it here and in the architecture"
        for name in imports(path):
            top, _, rest = name.partition(".")
            if top == "lipfw":
                target = rest.split(".")[0]
                fine = target in ALLOWED[own] | {own} or target in ("__version__", "")
                assert fine, f"{path.relative_to(ROOT)} imports {name}"
            elif top in LIBRARIES:
                assert own in LIBRARIES[top], f"{path.relative_to(ROOT)} imports {name}"


def test_a_pruner_a_task_and_a_prior_are_a_file_and_a_yaml():
    from lipfw.cli import CONF

    for group in ("pruner", "task", "prior"):
        shared = {"__init__", "pruner", "schedule", "prior", "operators", "gaussian"}
        modules = {p.stem for p in (ROOT / group).glob("*.py")} - shared
        assert modules == {p.stem for p in (CONF / group).glob("[!_]*.yaml")}
