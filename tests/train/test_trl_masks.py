"""Encoding 2 against TRL itself: its templates, and the masks of its training twins (`assistant_only_loss`)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from chat_templates import shown, tokenizer

from gridsweep.errors import SpecError
from gridsweep.train.conversations import Conversation
from gridsweep.train.encoding import encode
from gridsweep.train.wording import Wording

FOUND = find_spec("trl")
FOLDER = Path(FOUND.origin).parent / "chat_templates" if FOUND and FOUND.origin else None
SPACE = "llava_next"  # writes a space after the end of an answer, which counts here as a newline does, but not in TRL
TWINS = sorted(path.name.removesuffix("_training.jinja") for path in FOLDER.glob("*_training.jinja")) if FOLDER else []

pytestmark = [pytest.mark.train, pytest.mark.skipif(not TWINS, reason="the dev extra brings TRL's templates")]


def user(text: str) -> dict[str, object]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: object) -> dict[str, object]:
    return {"role": "assistant", "content": text, **more}


CONVERSATIONS = {
    "one answer": (user("QUESTION"), assistant("ANSWER")),
    "two answers": (user("QUESTION"), assistant("ANSWER"), user("SECOND"), assistant("REPLY")),
    "a system turn": ({"role": "system", "content": "Be brief."}, user("q"), assistant("a"), user("r"), assistant("b")),
    "spaces": (user(" q \n"), assistant("\n  a b\n\n"), user("x"), assistant(" y ")),
    "the same words": (user("a"), assistant("a"), user("a"), assistant("a"), user("a"), assistant("a")),
    "other alphabets": (user("ü€"), assistant("日本 🙂 ok"), user("é"), assistant("🙂🙂 so")),
    "reasoning": (
        user("q"),
        assistant("<think>\nR\n</think>\n\nanswer"),
        user("q2"),
        assistant("<think>\nR2\n</think>\n\nanswer2"),
    ),
    "an answer first": (assistant("first"), user("q"), assistant("a")),
    "answers in a row": (user("q"), assistant("a7"), assistant("b"), user("r"), assistant("c")),
    "reasoning apart": (user("q"), assistant("answer", reasoning_content="R"), user("q2"), assistant("answer2")),
}
REFUSED = {("gemma", "a system turn")}  # TRL fails; here the system turn is joined to the first question
ROLES = {"cohere", "cohere2", "gemma", "gemma3"}  # which refuse whatever does not alternate
LOUD = {
    *((name, said) for name in ROLES for said in ("an answer first", "answers in a row")),
    *((f"qwen3_{n}", "an answer first") for n in ("5_nothink", "5_think", "6", "8")),  # an answer alone has no query
    ("diffusion_gemma", "answers in a row"),
}
OTHERWISE = {
    ("qwen3", "an answer first"),  # no empty thought before the first, as the template writes none without a query
    ("glm4moe", "answers in a row"),  # the header of the next answer is not learned as the end of this one
}
DROPPED = {("deepseek_r1_distill", "reasoning")}  # TRL's twin keeps what the model's own template drops


@pytest.mark.parametrize("said", CONVERSATIONS)
@pytest.mark.parametrize("name", [name for name in TWINS if name != SPACE])
def test_ids_and_masks_are_those_of_the_training_twin(name, said):
    assert FOLDER is not None
    template, twin = ((FOLDER / f"{name}{end}.jinja").read_text() for end in ("", "_training"))
    made = tokenizer(template, "</s>" if "</s>" in template else "<EOS>")
    turns = CONVERSATIONS[said]
    answers = tuple(at for at, turn in enumerate(turns) if turn["role"] == "assistant")
    if (name, said) in LOUD:
        with pytest.raises(SpecError, match="the chat template refuses"):
            encode(made, [Conversation(turns, answers)], 10_000)
        return
    told = encode(made, [Conversation(turns, answers)], 10_000)
    (sample,) = told.samples
    if (name, said) in OTHERWISE:
        return
    if (name, said) in REFUSED:
        assert told.folded == 1
        return
    if (name, said) in DROPPED:
        assert told.altered == 2
        return
    theirs = made.apply_chat_template(
        Wording(made).write.shaped(turns), chat_template=twin, return_dict=True, return_assistant_tokens_mask=True
    )
    counted = [at for at, mark in enumerate(theirs["assistant_masks"]) if mark]
    assert list(sample.ids) == list(theirs["input_ids"])[: counted[-1] + 1], shown(made, sample.ids)
    assert [at for part in sample.learned for at in part] == counted
    (marked,) = encode(made, [Conversation(turns, answers)], 10_000, template=twin).samples
    assert marked == sample


def test_all_of_trls_templates_are_tried():
    assert len(TWINS) == 31
