"""A model's tokenizer, loaded from its files and checked; and which of the files is at fault if it cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any  # configurations of any architecture

from gridsweep.errors import SpecError
from gridsweep.sweep.experiments import Model
from gridsweep.train.checkpoint import TOWERS, loading, revision_of

if TYPE_CHECKING:
    from gridsweep.train.pretrained import Tokenizer

VOCABULARY = "tokenizer.json"
OTHERS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
"""Files that a tokenizer can do without: the one without which it loads is at fault."""
ENDS = "generation_config.json"
"""Names the tokens at which serving stops."""
PROBE = "Hello, world 123"


def tokenizer_of(model: Model, where: str, config: Any) -> Tokenizer:
    """Return the tokenizer of a model.

    Raise `SpecError` if it cannot be loaded, with the file at fault, if it has no vocabulary, or if it has tokens that
    the embedding has no rows for.
    """
    try:
        with loading("tokenizer", model):
            tokenizer = _loaded(where, revision_of(model, where))
            vocabulary = tokenizer.get_vocab()
    except SpecError as error:
        if (name := _at_fault(Path(where))) is None:
            raise
        text = str(error).replace("its tokenizer: ", f"its tokenizer ({name}): ", 1)
        raise SpecError(text) from error.__cause__
    if not vocabulary.keys() - tokenizer.get_added_vocab().keys():
        raise SpecError(
            f"the model {model.id} has no vocabulary: its {VOCABULARY} is missing or holds none; get its files again"
        )
    with loading(ENDS, model):
        _check_ends(Path(where) / ENDS)
    text = config.get_text_config(decoder=True)
    rows = getattr(text, "vocab_size", None)
    if isinstance(rows, int):
        beyond = sorted((id, token) for token, id in vocabulary.items() if id >= rows and not TOWERS.search(token))
        if beyond:
            raise SpecError(
                f"the tokenizer of {model.id} has {beyond[-1][0] + 1:,} tokens, the model's embedding {rows:,} rows "
                f"(the first token without a row is {beyond[0][1]!r}); call resize_token_embeddings("
                f"{beyond[-1][0] + 1}), train the new rows, and save the base"
            )
    return tokenizer


def _loaded(where: str, revision: dict[str, str]) -> Tokenizer:
    """Load a tokenizer, and use it once: some faults show only then."""
    from transformers import AutoTokenizer

    tokenizer: Tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **revision)
    tokenizer(PROBE)
    return tokenizer


def _at_fault(folder: Path) -> str | None:
    """Return the file of a local tokenizer that is at fault; None if that cannot be told, or for one of the hub."""
    if not folder.is_dir():
        return None
    for name in (VOCABULARY, *OTHERS):
        try:
            text = (folder / name).read_text(encoding="utf-8")
            if name.endswith(".json"):
                json.loads(text)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError):
            return name
    if (folder / VOCABULARY).exists() and not _loads_alone(folder / VOCABULARY):
        return VOCABULARY
    return next((name for name in OTHERS if (folder / name).exists() and _loads_without(folder, name)), None)


def _loads_alone(file: Path) -> bool:
    from tokenizers import Tokenizer as Fast

    try:
        Fast.from_file(str(file))
    except Exception:
        return False
    return True


def _loads_without(folder: Path, name: str) -> bool:
    with TemporaryDirectory() as other:
        for path in folder.iterdir():
            if path.name != name and path.is_file():
                (Path(other) / path.name).symlink_to(path.resolve())
        try:
            _loaded(other, {})
        except Exception:
            return False
    return True


def _check_ends(path: Path) -> None:
    """Raise `ValueError` if a file holds no JSON object; transformers passes over one that is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    if not isinstance(found, dict):
        raise ValueError("it holds no JSON object")
