"""Where a dataset's rows come from: a file, a folder of files, a folder of `save_to_disk`, or the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast  # datasets is loaded where used, and its objects are not typed

from gridsweep.errors import SpecError
from gridsweep.sweep.experiments import DATA_SUFFIXES, data_suffix, is_local
from gridsweep.train.card_folders import card_head, explained
from gridsweep.train.hub import reading
from gridsweep.train.rows import Row, file_rows, guarded

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""The words in file names that tell a split, as in the library `datasets`."""

ABOUT_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"}
ONE_SPLIT = re.compile(r"\s*([\w.-]+)\s*(?:\[\s*(-?\d+%?)?\s*:\s*(-?\d+%?)?\s*\])?\s*")


def rows_of(
    id: str, split: str, revision: str | None, config: str | None = None, key: str = "dataset.split"
) -> Iterable[Row]:
    """Return the rows of a split of a dataset. Raise `SpecError` if there is no such dataset, split or configuration.

    `key` is the key of the spec that names the split, for messages.
    """
    path = local_path(id)
    if path is None:
        return hub_rows(id, split, revision, config)
    if path.is_dir() and card_head(path) is not None:
        return _card_rows(path, split, config)
    if config is not None and key == "dataset.split":
        raise SpecError(
            f"dataset.config: {id} has no configurations, as its README.md names none; remove the key, or name a "
            "file or folder in dataset.id"
        )
    if path.is_dir():
        return _sliced(id, split, key, lambda name: _folder_rows(path, name, key))
    return _sliced(id, split, key, lambda name: _rows_of_file(path, name, key))


def local_path(id: str) -> Path | None:
    """Return the path of a dataset on this machine; None for one of the hub. Raise `SpecError` if it is missing."""
    try:
        path = Path(id).expanduser()
        folder, file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError) as error:  # no permission, or ~ names an unknown user
        raise SpecError(f"the dataset {id} cannot be looked at ({error}); check its path") from None
    if not folder and not is_local(id):
        return None
    if not folder and not file:
        raise SpecError(f"the dataset {id} is not there (looked in {Path.cwd()}); check its path")
    if not folder and data_suffix(path.name) is None:
        kinds = ", ".join(DATA_SUFFIXES)
        raise SpecError(f"the dataset {id} is no known kind of file; name it by its kind: {kinds}, each also as .gz")
    return path


def validation_split(id: str) -> str | None:
    """Return the name of a local folder's own validation split; None if there is none, or for other datasets."""
    path = local_path(id)
    if path is None or not path.is_dir() or card_head(path) is not None:
        return None
    if _is_saved(path):
        saved = _saved(path)
        return next((name for name in SPLITS["validation"] if isinstance(saved, dict) and name in saved), None)
    return "validation" if any(_has_word(file, path, SPLITS["validation"]) for file in _data_files(path)) else None


def hub_rows(
    id: str, split: str, revision: str | None, config: str | None = None, *, streaming: bool = False
) -> Iterator[Row]:
    """Yield the rows of a dataset that `datasets` loads; with `streaming`, of the whole split that a slice is of.

    Never runs a dataset's own code.
    """
    if streaming and (match := ONE_SPLIT.fullmatch(split.partition("+")[0])):
        split = match[1]  # slices of a stream are unknown to `datasets`
    # A folder is read again each time: the library's cache knows it by its name and card, not by its files' content.
    fresh = TemporaryDirectory(prefix="gridsweep-") if Path(id).is_dir() else nullcontext()
    with reading(id, split), fresh as cache:
        from datasets import load_dataset

        loaded = load_dataset(id, config, split=split, revision=revision, streaming=streaming, cache_dir=cache)
        found = cast("Iterable[Mapping[str, object]]", loaded)
        for number, row in enumerate(found, 1):
            yield Row(f"the dataset {id} ({split}), row {number}", row)


def _card_rows(folder: Path, split: str, config: str | None) -> Iterator[Row]:
    """Yield the rows of a folder as its card has them. Raise `SpecError` with the card or the file that is at fault."""
    try:
        yield from hub_rows(str(folder), split, None, config)
    except SpecError as error:
        if error.where == "dataset.config":
            raise
        raise explained(folder, config, split, error) from error.__cause__


def _sliced(id: str, split: str, key: str, rows: Callable[[str], Iterable[Row]]) -> Iterator[Row]:
    """Yield the rows of a split such as `train`, `train[:500]`, `train[10%:]` or `train+test`.

    Raise `SpecError` if slices select nothing of rows that are there.
    """
    left, taken = 0, 0
    for part in split.split("+"):
        match = ONE_SPLIT.fullmatch(part)
        if match is None:
            raise SpecError(f"{key}: {split!r} of {id} is not understood; write train, train[:500] or train[:50%]")
        name, first, last = match.groups()
        found = rows(name)
        if first is None and last is None:
            for row in found:
                taken += 1
                yield row
        else:
            listed = list(found)
            start, stop = _bound(first or "0", len(listed)), _bound(last or "100%", len(listed))
            chosen = listed[start:stop]
            taken, left = taken + len(chosen), left + len(listed) - len(chosen)
            yield from chosen
    if left and not taken:
        raise SpecError(f"{key}: {split!r} selects none of the {left} rows of {id}; name other rows")


def _bound(text: str, count: int) -> int:
    """Return a bound of a slice as a number of rows; a negative one counts from the end."""
    value = round(int(text[:-1]) * count / 100) if text.endswith("%") else int(text)
    return min(max(value + count if value < 0 else value, 0), count)


def _rows_of_file(path: Path, split: str, key: str) -> Iterator[Row]:
    if split != "train":
        other = "name a file there" if key == "dataset.validation" else "name another file"
        raise SpecError(f"{path}: a single file has no split {split!r}; remove {key}, or {other}")
    return file_rows(path)


def _folder_rows(path: Path, split: str, key: str) -> Iterator[Row]:
    """Yield the rows of a folder's split: of its Arrow files if `save_to_disk` wrote it, else of its data files."""
    if _is_saved(path):
        yield from _saved_rows(path, split, key)
        return
    for file in _files_of(path, split, key):
        yield from file_rows(file)


def _files_of(path: Path, split: str, key: str) -> Sequence[Path]:
    """Return the data files of a split in order of their names. Raise `SpecError` if that is not clear."""
    files = _data_files(path)
    if not files:
        kinds = ", ".join(DATA_SUFFIXES)
        raise SpecError(f"the folder {path} holds no data files; they end in {kinds}, each also with .gz")
    found = [file for file in files if _has_word(file, path, SPLITS.get(split, (split,)))]
    if not found and split == "train":
        words = [word for names in SPLITS.values() for word in names]
        found = [file for file in files if not _has_word(file, path, words)]
    if not found:
        raise SpecError(f"the folder {path} has no files of the split {split}, only {_listed(files)}; check {key}")
    suffixes = {data_suffix(file.name) for file in found}
    whole = {str(file).lower().removesuffix(".gz") for file in found}
    if len(suffixes) > 1 or len(whole) < len(found):
        raise SpecError(
            f"the folder {path} holds files of several kinds ({_listed(found)}), perhaps the same rows twice; "
            "name one of them, or keep one kind"
        )
    return found


def _data_files(path: Path) -> list[Path]:
    """Return all data files of a folder, without hidden ones and without those about the data."""
    return sorted(
        file
        for file in path.rglob("*")
        if data_suffix(file.name)
        and file.name not in ABOUT_DATA
        and not any(part.startswith((".", "__")) for part in file.relative_to(path).parts)
        and file.is_file()
    )


def _has_word(file: Path, folder: Path, words: Iterable[str]) -> bool:
    """Whether a file's path below its folder has one of the words, apart from other letters."""
    name = str(file.relative_to(folder)).lower()
    return any(re.search(rf"(?<![a-z]){re.escape(word.lower())}(?![a-z])", name) for word in words)


def _listed(files: Sequence[Path]) -> str:
    names = [file.name for file in files[:5]]
    return ", ".join(names) + (f" and {len(files) - 5} more" if len(files) > 5 else "")


def _is_saved(path: Path) -> bool:
    """Whether `save_to_disk` of `datasets` wrote a folder."""
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def _saved(path: Path) -> Any:
    with guarded(f"the folder {path}", "write it again with save_to_disk"):
        from datasets import load_from_disk

        return load_from_disk(str(path))


def _saved_rows(path: Path, split: str, key: str) -> Iterator[Row]:
    saved = _saved(path)
    if isinstance(saved, dict):
        if split not in saved:
            raise SpecError(f"the folder {path} has the splits {', '.join(saved)}, not {split}; set {key}")
        saved = saved[split]
    elif split != "train":
        raise SpecError(f"the folder {path} holds one dataset without splits, not {split}; remove {key}")
    with guarded(f"the folder {path}", "write it again with save_to_disk"):
        for number, row in enumerate(saved, 1):
            yield Row(f"{path} ({split}), row {number}", row)
