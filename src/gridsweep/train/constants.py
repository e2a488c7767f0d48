"""What this machine reads of what a sweep takes as constant: digests of data, base and tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gridsweep.records.attempts import Assignment
from gridsweep.records.files import file_digest, replace_file
from gridsweep.sweep.experiments import Model
from gridsweep.train.cache import cache_folder
from gridsweep.train.hub import model_on_hub
from gridsweep.train.model import resolve

if TYPE_CHECKING:
    from gridsweep.train.pretrained import Tokenizer
    from gridsweep.train.samples import Sample


def of_model(model: Model) -> dict[str, str]:
    """Return the digests of a base's config and weights; for a pinned model of the hub, its commit.

    The files must be there; weights are hashed again only if a file's path, inode, size or times have changed.
    """
    if model_on_hub(model):
        assert model.revision, "a model of the hub is pinned before it is loaded"
        return {"model commit": model.revision}
    folder = Path(resolve(model))
    weights = {path.name: cached_digest(path) for path in sorted(folder.glob("*.safetensors"))}
    return {
        "model config": file_digest(folder / "config.json"),
        "model weights": _digest(sorted(weights.values())),
    }


def of_tokenizer(tokenizer: Tokenizer) -> dict[str, str]:
    """Return the digests of a tokenizer, by what it does, and of its chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    does = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return {
        "tokenizer": _digest([does, json.dumps(special, sort_keys=True)]),
        "chat template": _digest([json.dumps(tokenizer.chat_template, sort_keys=True)]),
    }


def of_samples(train: Sequence[Sample], validation: Sequence[Sample], assignment: Assignment) -> dict[str, str]:
    """Return the digest of token ids and of which of them are learned, in order.

    Where experiments may differ in what training samples are cut to, those have a digest for each length.
    """
    if assignment.judging is None:
        return {"encoded samples": _encoded([*train, *validation])}
    cut = f"training samples of at most {assignment.recipe.max_length} tokens"
    return {"encoded samples": _encoded(validation), cut: _encoded(train)}


def _encoded(samples: Iterable[Sample]) -> str:
    sha = hashlib.sha256()
    for sample in samples:
        sha.update(json.dumps([sample.ids, sample.prompt, sample.context]).encode())
    return sha.hexdigest()


def cached_digest(path: Path) -> str:
    """Return the sha256 of a file's content, from the machine's cache if the file has not changed since."""
    real = path.resolve()
    seen = real.stat()
    key = _digest([str(real), str(seen.st_ino), str(seen.st_size), *map(str, (seen.st_mtime_ns, seen.st_ctime_ns))])
    kept = cache_folder() / "digests" / key
    if kept.is_file() and len(text := kept.read_text()) == hashlib.sha256().digest_size * 2:
        return text
    found = file_digest(real)
    kept.parent.mkdir(exist_ok=True)
    replace_file(kept, found)
    return found


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
