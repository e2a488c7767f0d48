"""A Modelfile's template against the prompts of training, for the chat templates that TRL brings."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from chat_templates import BOS, EOS, shown, tokenizer

from gridsweep.errors import SpecError
from gridsweep.serving.base import _prompts
from gridsweep.train.wording import Wording

FOUND = find_spec("trl")
FOLDER = Path(FOUND.origin).parent / "chat_templates" if FOUND and FOUND.origin else None
FILES = sorted(path for path in FOLDER.glob("*.jinja") if "_training" not in path.name) if FOLDER else []
SAID = {"llama3", "phi3_5", "qwen2_5", "qwen3_instruct_2507"}
"""Templates that Ollama's form can say; more of them may be."""

pytestmark = [pytest.mark.train, pytest.mark.skipif(not FILES, reason="the dev extra brings TRL's templates")]


def turns(*texts: str, system: str = "") -> list[dict[str, str]]:
    said = [{"role": "user" if n % 2 == 0 else "assistant", "content": text} for n, text in enumerate(texts)]
    return [{"role": "system", "content": system}, *said] if system else said


CONVERSATIONS = [turns(*texts, system=s) for s in ("", "Be brief.") for texts in ("q", "qar", "qarbs")]


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_what_is_said_for_ollama_is_what_training_writes(file: Path) -> None:
    eos = next((mark for mark in ("<|im_end|>", "<|eot_id|>") if mark in file.read_text()), EOS)
    made = tokenizer(file.read_text(), eos)
    wording = Wording(made, 2, datetime(2026, 1, 2, tzinfo=UTC))
    try:
        prompts = _prompts(wording, SimpleNamespace(max_position_embeddings=4096, architectures=["AForCausalLM"]))
    except SpecError:
        return  # the worker refuses it too
    assert (prompts.context, prompts.architecture) == (4096, "AForCausalLM")
    if prompts.around is None or prompts.around.template() is None:
        assert file.stem not in SAID
        return
    for conversation in CONVERSATIONS:
        wanted = shown(made, wording.prompt(conversation)).removeprefix(BOS)
        assert prompts.around.written(conversation) == wanted
    if file.stem.startswith("qwen"):
        assert prompts.stops == ("<|im_end|>",)


def test_of_a_model_without_a_template_the_instruction_format_is_said() -> None:
    made = tokenizer(None)
    wording = Wording(made, 2)
    around = _prompts(wording, SimpleNamespace()).around
    assert around is not None and around.template() is not None
    for conversation in CONVERSATIONS:
        assert around.written(conversation) == shown(made, wording.prompt(conversation)).removeprefix(BOS)
