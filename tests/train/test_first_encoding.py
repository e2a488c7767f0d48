"""Version 1 of the encoding, which folders without a version go on with: the same ids for ever."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from gridsweep.errors import SpecError
from gridsweep.train.conversations import Conversation, asked
from gridsweep.train.encoding import encode
from gridsweep.train.model import TINY_QWEN2

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TINY_QWEN2)


def test_the_response_and_its_end_are_counted_and_nothing_else(tokenizer) -> None:
    (sample,) = encode(tokenizer, [asked("Add one.", "x += 1")], 64, encoding=1).samples
    assert tokenizer.decode(sample.ids[sample.prompt :]) == "x += 1<|endoftext|>"
    assert tokenizer.decode(sample.ids[: sample.prompt]) == "### Instruction:\nAdd one.\n\n### Response:\n"
    assert sample.counted == len(sample.ids) - sample.prompt


def test_what_is_too_long_loses_its_end_and_a_prompt_that_fills_all_is_dropped(tokenizer) -> None:
    short, long = asked("p", "r"), asked("p", "r " * 100)
    encoded = encode(tokenizer, [short, long, asked("p " * 100, "r")], 40, encoding=1)
    assert (encoded.truncated, encoded.dropped) == (1, 1)
    assert [len(sample.ids) for sample in encoded.samples][1] == 40
    assert encoded.samples[0].ids[-1] == tokenizer.eos_token_id
    assert encoded.samples[1].ids[-1] != tokenizer.eos_token_id


def test_a_chat_template_is_used_where_there_is_one() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY_QWEN2)
    turns = "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}{% endfor %}"
    tokenizer.chat_template = turns + "{% if add_generation_prompt %}<assistant>{% endif %}"
    turns = [{"role": r, "content": c} for r, c in (("system", "s"), ("user", "u"), ("assistant", "r"))]
    (sample,) = encode(tokenizer, [Conversation(tuple(turns), (2,))], 64, encoding=1).samples
    assert tokenizer.decode(sample.ids) == "<system>s<user>u<assistant>r<|endoftext|>"


def test_the_ids_are_those_of_the_time_before_versions() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY_QWEN2)
    (plain,) = encode(tokenizer, [asked("Add one.", "x += 1")], 64, encoding=1).samples
    prompt = (1710, 896, 1930, 437, 27, 200, 34, 650, 1039, 15, 200, 200, 1710, 1086, 1217, 27, 200)
    assert (plain.ids, plain.prompt, plain.context) == ((*prompt, 89, 1132, 222, 18, 0), 17, ())
    turns = "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}{% endfor %}"
    tokenizer.chat_template = turns + "{% if add_generation_prompt %}<assistant>{% endif %}"
    said = [{"role": r, "content": c} for r, c in (("system", "s"), ("user", "u"), ("assistant", "r"))]
    (chat,) = encode(tokenizer, [Conversation(tuple(said), (2,))], 64, encoding=1).samples
    prompt = (29, 1191, 578, 31, 84, 29, 86, 447, 31, 86, 29, 66, 313, 706, 1564, 31)
    assert (chat.ids, chat.prompt, chat.context) == ((*prompt, 83, 0), 16, ())


def test_a_template_of_ones_own_needs_a_newer_version(tokenizer) -> None:
    with pytest.raises(SpecError, match=r"model.chat_template needs encoding 2 and this sweep has encoding 1"):
        encode(tokenizer, [asked("p", "r")], 40, encoding=1, template="{{ messages }}")
    with pytest.raises(SpecError, match=r"encoding 3 is unknown; upgrade gridsweep"):
        encode(tokenizer, [asked("p", "r")], 40, encoding=3)
