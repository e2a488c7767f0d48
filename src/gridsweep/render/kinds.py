"""The document class that each command prints with `--json`."""

from __future__ import annotations

from gridsweep.accounting.report import Report
from gridsweep.carbon.outlook import Outlook
from gridsweep.render import answers
from gridsweep.render.examination import Examination
from gridsweep.render.failures import Failure
from gridsweep.runs import mending
from gridsweep.runs.collecting import Collection
from gridsweep.runs.recommending import Recommended
from gridsweep.serving.launch import Served
from gridsweep.simulation.backtest import Simulation
from gridsweep.simulation.plan import Plan

KINDS: dict[str, type] = {
    "best": answers.Best,
    "check": answers.Check,
    "collect": Collection,
    "doctor": Examination,
    "error": Failure,
    "explain": answers.Explanation,
    "export": answers.Written,
    "forecast": Outlook,
    "init": answers.Written,
    "logs": answers.Logs,
    "logs --follow": answers.LogLine,
    "models": answers.Adapters,
    "plan": Plan,
    "recommend": Recommended,
    "render": answers.Rendered,
    "repair": mending.Repaired,
    "report": Report,
    "run": Report,
    "run --detach": answers.Detached,
    "serve": Served,
    "serve --kubernetes": answers.Written,
    "simulate": Simulation,
    "status": answers.SweepStatus,
    "stop": answers.Stopped,
    **dict.fromkeys(("add", "cancel", "hold", "pause", "release", "resume"), answers.Told),
    "verify": mending.Verified,
    "zones": answers.Zones,
}
"""Document class by command, with an option where that changes the document; `error` is for every error."""
