"""The dashboard as an object of wandb-workspaces: made without an account, saved with one."""
import json

from lipfw.dashboard.panels import COLUMNS, GROUP, SECTIONS, Bars, Curve, Pictures, Scatter, Table
from lipfw.errors import InputError

_MOST = 100     # runs that a panel takes, of those that are seen


def workspace(entity: str, project: str, name: str):
    """Return the dashboard as a `wandb_workspaces.workspaces.Workspace`; nothing is sent.

    Raises InputError if that package is not installed.
    """
    ws, wr = _library()
    sections = [ws.Section(name=s.name, panels=[_panel(wr, p) for p in s.panels], is_open=True) for s in SECTIONS]
    return ws.Workspace(entity=entity, project=project, name=name, sections=sections,
                        settings=ws.WorkspaceSettings(max_runs=_MOST),
                        runset_settings=ws.RunsetSettings(pinned_columns=list(COLUMNS)))


def as_json(dashboard) -> str:
    """Return what would be sent, indented."""
    spec = json.loads(dashboard._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    return json.dumps({"entity": dashboard.entity, "project": dashboard.project, "name": dashboard.name, "spec": spec},
                      indent=2) + "\n"


def account() -> str:
    """Return the entity of the account that is logged in. Raises InputError if there is none, or no network."""
    import wandb

    try:
        return wandb.Api(timeout=20).default_entity
    except wandb.errors.UsageError:     # no key
        raise InputError("no account of Weights & Biases is known here; make one at https://wandb.ai, then `wandb "
                         "login` or set WANDB_API_KEY; without one, --show writes the dashboard") from None
    except Exception as e:
        raise _failed(e) from None


def save(dashboard) -> str:
    """Send the dashboard to the project as a new saved view; returns its address. Raises InputError if it can't be."""
    try:
        return dashboard.save().url
    except Exception as e:
        raise _failed(e) from None


def _failed(error: Exception) -> InputError:
    return InputError(f"Weights & Biases did not take the dashboard ({' '.join(str(error).split())[:200]}); check the "
                      "network, --entity and --project: the project must exist, as it does once a run was sent there "
                      "(wandb sync)")


def _library():
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise InputError("the dashboard needs the package wandb-workspaces: pip install 'lipfw[dashboard]'") from None
    return ws, wr


def _panel(wr, panel: Curve | Pictures | Table | Bars | Scatter):
    over_seeds = dict(groupby=wr.Config(GROUP), groupby_aggfunc="mean", groupby_rangefunc="stddev")
    match panel:
        case Curve(title, x, y, pattern):
            return wr.LinePlot(title=title, x=x, y=list(y), metric_regex=pattern, max_runs_to_show=_MOST, **over_seeds)
        case Pictures(title, keys):
            return wr.MediaBrowser(title=title, media_keys=list(keys), mode="grid", grid_x_axis="step",
                                   grid_y_axis="run")
        case Table(key):
            return wr.WeavePanelSummaryTable(table_name=key)
        case Bars(title, key):
            return wr.BarPlot(title=title, metrics=[key], max_runs_to_show=_MOST, **over_seeds)
        case Scatter(title, x, y):
            return wr.ScatterPlot(title=title, x=wr.SummaryMetric(x), y=wr.SummaryMetric(y))
