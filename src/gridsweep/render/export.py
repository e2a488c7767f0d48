"""The export of one experiment: its adapter, model card and metrics, in a folder or at a URL of the user's choice."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory

from gridsweep.accounting.leaderboard import Row
from gridsweep.accounting.report import Report
from gridsweep.errors import AdapterError
from gridsweep.records.files import sync, verify, write_file
from gridsweep.render import remote
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.run import summarize
from gridsweep.serving.adapters import Adapter, _listed, one, sealed
from gridsweep.serving.merged import check_base
from gridsweep.serving.merged import merge as merge_into
from gridsweep.state.state import State
from gridsweep.sweep.experiments import BUNDLED_MODELS, Model, is_local


def export(
    folder: str | Path, experiment: str, to: str | Path, *, ollama: bool = False, merge: bool = False
) -> Path | str:
    """Copy an adapter, its model card and its metrics to `to`: a folder, or a URL that fsspec knows.

        adapter/   the files of the manifest; digests are checked before and after copying
        README.md  the model card            metrics.json  losses, hyperparameters, energy, carbon, versions
        Modelfile  with `ollama`
        merged/    with `merge`: base and adapter as one model; merged.json says how exactly

    A folder appears complete or not at all; files at a URL are read back and compared, and removed if one fails. Return
    the folder, or the URL without its password. Raise `AdapterError` if the adapter is damaged or not a plain adapter,
    or if `to` exists and is not empty, or if base and adapter cannot be merged.
    """
    place = RunFolder(Path(folder))
    state = place.read()
    report = summarize(state)
    adapter = one(_listed(place, report), experiment, report.rows)
    whole = None
    if merge:
        check_base(adapter.experiment, state.standings[adapter.experiment].experiment.base)
        whole = state.constants.pinned(state.sweep).model
    if isinstance(to, str) and remote.is_url(to):
        with remote.place(to) as elsewhere, TemporaryDirectory() as temporary:
            texts = _texts(state, report, adapter.experiment, ollama=ollama)
            _fill(Path(temporary) / "export", adapter, texts, whole)
            elsewhere.upload(Path(temporary) / "export")
        return remote.public(to)
    target = Path(to)
    _vacant(target)
    texts = _texts(state, report, adapter.experiment, ollama=ollama)
    draft = target.absolute().with_name(f".{target.absolute().name}.{os.getpid()}")
    try:
        _fill(draft, adapter, texts, whole)
        draft.rename(target.absolute())
        sync(target.absolute().parent)
    except OSError as error:
        raise AdapterError(f"cannot export to {target}: {error.strerror or error}; choose another folder") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _texts(state: State, report: Report, experiment: str, *, ollama: bool) -> dict[str, str]:
    """Return the texts of the files beside the adapter, by name."""
    from gridsweep.render import card, documents

    row = next(row for row in report.rows if row.experiment == experiment)
    texts = {
        "README.md": card.render(report, row),
        "metrics.json": documents.text(metrics(state, report, row)) + "\n",
    }
    if ollama:
        from gridsweep.serving import bases
        from gridsweep.serving import ollama as modelfiles
        from gridsweep.serving.taught import Taught

        model, recipe = state.sweep.model, state.sweep.recipe_of(state.standings[experiment].experiment)
        modelfiles.check(experiment, recipe.rslora)
        prompts = bases.prompts_of(model, Taught(state.constants.encoding, state.submitted_at))
        shown, on_hub = replace(model, id=_public(model.id)), not is_local(model.id) and model.id not in BUNDLED_MODELS
        texts[modelfiles.MODELFILE] = modelfiles.modelfile(experiment, shown, prompts, recipe.max_length, on_hub=on_hub)
    return texts


def _fill(draft: Path, adapter: Adapter, texts: dict[str, str], whole: Model | None) -> None:
    """Write an export into a new folder; with the adapter merged into the model `whole` if that is given."""
    sealed(adapter)
    draft.mkdir(parents=True)
    shutil.copytree(adapter.path, draft / "adapter", symlinks=True)
    if not verify(draft / "adapter"):
        raise AdapterError(f"the adapter of {adapter.experiment} changed during the copy; export it again")
    if whole is not None:
        made = merge_into(whole, draft / "adapter", draft / "merged")
        texts = {
            **texts,
            "merged.json": json.dumps(made, indent=1) + "\n",
            "README.md": f"{texts['README.md'].rstrip()}\n\n## Merged\n\n`merged/` is base and adapter as one model: "
            f"{made['told']}.\n",
        }
    for name, text in texts.items():
        write_file(draft / name, text)
    sync(draft)


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
        "params": row.params.values,
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
