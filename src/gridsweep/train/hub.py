"""The Hugging Face hub: which commit a revision names, and whether it could be reached."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gridsweep.errors import HubError, SpecError
from gridsweep.sweep.experiments import BUNDLED_DATA, BUNDLED_MODELS, Dataset, Model, is_local
from gridsweep.train.rows import guarded

UNREACHABLE = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "ReadTimeout"}
"""Names of the errors of Hugging Face's libraries and of HTTP clients, which are imported late or not at all."""

CONFIGS = re.compile(r"(?:available configs|Available): \[(.*?)\]")
"""How `datasets` lists a dataset's configurations if none was named, or another."""


def model_on_hub(model: Model) -> bool:
    return _on_hub(model.id, BUNDLED_MODELS)


def data_on_hub(dataset: Dataset) -> bool:
    return _on_hub(dataset.id, BUNDLED_DATA)


def _on_hub(id: str, bundled: Collection[str]) -> bool:
    """Whether an id is of the hub, as `resolve` and `local_path` take it: no path, and no folder of that name here."""
    return id not in bundled and not is_local(id) and not Path(id).expanduser().is_dir()


def pinned_data(dataset: Dataset) -> Dataset:
    """Return a dataset with the commit that its revision names now; others as they are.

    Raise `HubError` if the hub cannot be reached and the dataset is not in its cache, `SpecError` if it is unknown.
    """
    if not data_on_hub(dataset):
        return dataset
    with reading(dataset.id, dataset.split):
        from datasets import load_dataset_builder

        builder = load_dataset_builder(dataset.id, dataset.config, revision=dataset.revision)
        return replace(dataset, revision=builder.hash)


def commit_of_data(pinned: Dataset) -> dict[str, str]:
    """Return the constant that names the commit of a dataset of the hub; nothing for others."""
    return {"data commit": pinned.revision} if pinned.revision and data_on_hub(pinned) else {}


@contextmanager
def reading(id: str, split: str) -> Iterator[None]:
    """Turn any error of `datasets` into a `HubError` where the hub cannot be reached, else into a `SpecError`."""
    remedy = "check the id, the split and the network, or give local files"
    try:
        with guarded(f"the dataset {id} ({split})", remedy):
            yield
    except SpecError as error:
        if unreachable(error):
            raise HubError(
                f"the dataset {id} is not on this machine and the hub cannot be reached",
                remedy="check the network, or give local files",
            ) from error
        if named := CONFIGS.search(str(error.__cause__)):
            what = f"the dataset {id} has the configurations {named[1]}"
            raise SpecError(what, where="dataset.config", remedy="set it to one of them") from error
        raise


def unreachable(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that a hub could not be reached, rather than that it refused."""
    while error is not None:
        if type(error).__name__ in UNREACHABLE or isinstance(error, ConnectionError):
            return True
        error = error.__cause__ or error.__context__
    return False
