"""The export of one experiment: its adapter, model card and metrics in a folder of the user's choice."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePath

from gridsweep.accounting.leaderboard import Row
from gridsweep.accounting.report import Report
from gridsweep.errors import AdapterError
from gridsweep.records.files import sync, verify, write_file
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.run import summarize
from gridsweep.serving.adapters import _listed, one, sealed
from gridsweep.state.state import State
from gridsweep.sweep.experiments import is_local


def export(folder: str | Path, experiment: str, to: str | Path) -> Path:
    """Copy an adapter, its model card and its metrics into `to`, which appears complete or not at all.

        adapter/   the files of the manifest; digests are checked before and after copying
        README.md  the model card            metrics.json  losses, hyperparameters, energy, carbon, versions

    Raise `AdapterError` if the adapter is damaged or not a plain adapter, or if `to` exists and is not empty.
    """
    from gridsweep.render import card, documents

    place, target = RunFolder(Path(folder)), Path(to)
    state = place.read()
    report = summarize(state)
    adapter = one(_listed(place, report), experiment, report.rows)
    row = next(row for row in report.rows if row.experiment == adapter.experiment)
    _vacant(target)
    sealed(adapter)
    draft = target.absolute().with_name(f".{target.absolute().name}.{os.getpid()}")
    try:
        draft.mkdir(parents=True)
        shutil.copytree(adapter.path, draft / "adapter", symlinks=True)
        if not verify(draft / "adapter"):
            raise AdapterError(f"the adapter of {adapter.experiment} changed during the copy; export it again")
        write_file(draft / "README.md", card.render(report, row))
        write_file(draft / "metrics.json", documents.text(metrics(state, report, row)) + "\n")
        sync(draft)
        draft.rename(target.absolute())
        sync(target.absolute().parent)
    except OSError as error:
        raise AdapterError(f"cannot export to {target}: {error.strerror or error}; choose another folder") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def metrics(state: State, report: Report, row: Row) -> dict[str, object]:
    """Return the content of metrics.json; energy in kWh, emissions in g CO2eq, intensity in gCO2eq/kWh."""
    standing = state.standings[row.experiment]
    outcome, model, facts = standing.outcome, state.sweep.model, dict(report.facts)
    return {
        "schema_version": 2,
        "id": row.experiment,
        "sweep": report.sweep,
        "model": {"id": _public(model.id), "revision": model.revision},
        "dataset": {
            "id": _public(report.dataset),
            "revision": state.sweep.dataset.revision,
            "digest": facts.pop("dataset_digest", None),
        },
        "base": row.base,
        "params": {"r": row.r, "alpha": row.alpha, "lr": row.lr, "dropout": row.dropout},
        "seed": standing.experiment.seed,
        "step": standing.step,
        "place": row.place,
        "of": len(report.rows),
        "tied": row.tied,
        "validation_loss": row.loss,
        "initial_validation_loss": row.initial_loss,
        "train_loss": outcome.train_loss if outcome else None,
        "energy_kwh": row.energy_kwh,
        "emissions_g": None if row.unknown_kwh else row.emissions_g,
        "unknown_energy_kwh": row.unknown_kwh,
        "mean_intensity_g_per_kwh": row.mean_intensity,
        "immediate_emissions_g": row.immediate_g,
        "sweep_emissions_g": report.emissions_g,
        "zone": report.zone,
        "source": report.source,
        "quality": report.quality,
        "energy_by_source_kwh": report.energy_sources,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
        "facts": facts,
    }


def _vacant(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise AdapterError(f"{target} exists and is not a folder; choose another")
    if target.is_dir() and any(target.iterdir()):
        raise AdapterError(f"{target} is not empty, and export overwrites nothing; choose another folder")


def _public(id: str) -> str:
    """Return an id without local paths: of a folder, only its name."""
    return PurePath(id).name if is_local(id) else id
