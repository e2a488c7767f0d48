"""Where answers begin and end: each value of TRL's masks, and what holds for any conversation."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from chat_templates import EOS, OTHERS, SHAPES, Shape, shown, tokenizer, tokenizer_of
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from gridsweep.errors import SpecError
from gridsweep.train.conversations import Conversation, asked
from gridsweep.train.encoding import encode
from gridsweep.train.loading import _cut
from gridsweep.train.model import TINY_QWEN2
from gridsweep.train.samples import Encoded, Sample
from gridsweep.train.serving_template import serving_template
from gridsweep.train.wording import Wording, ends, prompt

pytestmark = pytest.mark.train

ALL = {**SHAPES, **OTHERS}
DAY = datetime(2026, 11, 30, 12, tzinfo=UTC)
CHATML = OTHERS["ChatML with another eos"]


def turns(*said: str, system: str | None = None) -> tuple[dict[str, str], ...]:
    roles = ("user", "assistant")
    first = [] if system is None else [{"role": "system", "content": system}]
    return (*first, *({"role": roles[at % 2], "content": text} for at, text in enumerate(said)))


TWO = turns("QUESTION", "ANSWER", "SECOND", "REPLY")
WITH_SYSTEM = turns("QUESTION", "ANSWER", "SECOND", "REPLY", system="SYSTEM")


def learned(shape_or_tokenizer, sample: Sample) -> str:
    made = tokenizer_of(shape_or_tokenizer) if isinstance(shape_or_tokenizer, Shape) else shape_or_tokenizer
    return "".join(shown(made, sample.ids[part.start : part.stop]) for part in sample.learned)


# Each row of the table


@pytest.mark.parametrize("name", ALL)
def test_what_counts_is_what_trl_counts(name):
    shape = ALL[name]
    both = [Conversation(TWO, (1, 3)), Conversation(WITH_SYSTEM, (2, 4))]
    found = encode(tokenizer_of(shape), both, 4000).samples
    assert [learned(shape, sample) for sample in found] == [shape.counts, shape.counts]


@pytest.mark.parametrize("name", ALL)
def test_the_last_answer_alone_is_the_last_part_of_it(name):
    shape = ALL[name]
    (last,) = encode(tokenizer_of(shape), [Conversation(TWO, (3,))], 4000).samples
    assert shape.counts.endswith(learned(shape, last)) and "ANSWER" not in learned(shape, last)
    assert "REPLY" in learned(shape, last) and "ANSWER" in shown(tokenizer_of(shape), last.ids)


@pytest.mark.parametrize("name", ALL)
def test_a_prompt_ends_where_the_answer_is_taught_and_generation_stops_at_its_end(name):
    shape, made = ALL[name], tokenizer_of(ALL[name])
    text = shown(made, prompt(made, TWO[:1]))
    assert text.partition("QUESTION")[2].endswith(shape.prompt)
    (sample,) = encode(made, [Conversation(TWO[:2], (1,))], 4000).samples
    assert shown(made, sample.ids).startswith(text)
    assert ends(made) == set(made.convert_tokens_to_ids(list(shape.ends)))
    assert ends(made) & set(sample.ids[sample.prompt :])


@pytest.mark.parametrize("name", ALL)
def test_a_server_with_the_serving_template_writes_the_same_prompts(name):
    made = tokenizer_of(ALL[name])
    wording = Wording(made, date=DAY)
    template = serving_template(wording) or made.chat_template
    for said in (TWO[:1], TWO[:3], WITH_SYSTEM[:2], WITH_SYSTEM[:4]):
        ids = made.apply_chat_template(
            wording.write.shaped(said), chat_template=template, add_generation_prompt=True, return_dict=False
        )
        assert shown(made, ids) == shown(made, wording.prompt(said))


def test_the_learned_answer_is_told_by_its_facts():
    told = encode(tokenizer_of(SHAPES["gemma"]), [Conversation(WITH_SYSTEM, (2, 4))], 4000)
    assert told.facts == {"prompt_template": "chat template", "answers_end_with": "<end_of_turn>"}
    assert told.folded == 1 and told.altered == 0
    assert "<start_of_turn>user\nSYSTEM\n\nQUESTION<end_of_turn>" in shown(
        tokenizer_of(SHAPES["gemma"]), told.samples[0].ids
    )


# The ways of templates


def test_a_qwen3_answer_in_the_middle_is_learned_as_it_was_given():
    made = tokenizer_of(SHAPES["qwen3"])
    whole, last = encode(made, [Conversation(TWO, (1, 3)), Conversation(TWO, (3,))], 4000).samples
    assert "assistant\n<think>\n\n</think>\n\nANSWER" in shown(made, whole.ids)
    assert "assistant\nANSWER" in shown(made, last.ids)  # as context the template leaves the thoughts out


def test_a_template_that_marks_what_the_assistant_writes_is_believed():
    text = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}{{ m.content }}<|end|>"
        "{% endgeneration %}{% else %}U:{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}A:{% endif %}"
    )
    made = tokenizer(text)
    both, last = encode(made, [Conversation(TWO, (1, 3)), Conversation(TWO, (3,))], 4000).samples
    assert learned(made, both) == "ANSWER<|end|>REPLY<|end|>" and learned(made, last) == "REPLY<|end|>"
    assert [shown(made, both.ids[slice(*gap)]) for gap in both.context] == ["U:SECONDA:"]


def test_marks_that_leave_out_the_end_are_told():
    text = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}<|end|>{% endfor %}"
    told = encode(tokenizer(text), [Conversation(TWO[:2], (1,))], 4000)
    end = "nothing in 1 of 1 samples: the template's generation marks leave out <|end|>"
    assert told.facts["answers_end_with"] == end


class Slow:
    """A tokenizer without offsets."""

    is_fast = False

    def __init__(self, fast):
        self.fast = fast

    def __getattr__(self, name):
        return getattr(self.fast, name)

    def __call__(self, text, **options):
        assert "return_offsets_mapping" not in options
        return self.fast(text, **options)


@pytest.mark.parametrize("name", ["phi3", "qwen2_5", "qwen3", "glm4moe", "Mistral"])
def test_a_tokenizer_without_offsets_gets_the_same_tokens(name):
    made = tokenizer_of(ALL[name])
    both = [Conversation(TWO, (1, 3)), Conversation(WITH_SYSTEM, (2, 4)), Conversation(TWO, (3,))]
    assert encode(Slow(made), both, 4000) == encode(made, both, 4000)


def test_todays_date_is_that_of_the_sweep():
    made = tokenizer_of(SHAPES["llama3_2"])
    told = encode(made, [Conversation(TWO, (3,))], 4000, date=datetime(2025, 2, 3, tzinfo=UTC))
    assert "Today Date: 03 Feb 2025\n" in shown(made, told.samples[0].ids)
    assert told.facts["template_date"] == "2025-02-03"
    assert "03 Feb 2025" in shown(made, prompt(made, TWO[:1], date=datetime(2025, 2, 3, tzinfo=UTC)))
    assert encode(made, [Conversation(TWO, (3,))], 4000).facts["template_date"] == "the day of the encoding"


def test_every_part_of_a_date_is_as_strftime_writes_it():
    for format in ("%d %b %Y", "%Y-%m-%d", "%A, %B %d", "%H:%M:%S", "%x %j %y", "%-d.%-m."):
        made = tokenizer(f"{{{{ strftime_now({format!r}) }}}}\n{CHATML.template}", EOS)
        text = Wording(made, date=DAY).write(TWO[:1])
        assert text.startswith(f"{DAY.strftime(format)}\n<|im_start|>user")
        assert Wording(made, date=DAY).write(TWO[:1]) == text


def test_calls_of_tools_are_learned_once_and_tools_are_context():
    template = (
        r"{% for m in messages %}{{ '<|im_start|>' + ('user' if m.role == 'tool' else m.role) + '\n' }}"
        r"{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m.content }}"
        r"{% for call in m.tool_calls or [] %}{{ '<call>' + call.function.name + '</call>' }}{% endfor %}"
        r"{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    made = tokenizer(template)
    calls = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    said = (
        {"role": "user", "content": "QUESTION"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "7"},
        {"role": "assistant", "content": "ANSWER"},
    )
    (sample,) = encode(made, [Conversation(said, (1, 3))], 4000).samples
    thought = "<think>\n\n</think>\n\n"
    assert learned(made, sample) == f"{thought}<call>f</call><|im_end|>\n{thought}ANSWER<|im_end|>\n"


def test_reasoning_that_the_template_drops_is_counted():
    made = tokenizer_of(SHAPES["deepseek_r1_distill"])
    told = encode(made, [Conversation(turns("q", "<think>\nwhy\n</think>\n\nso"), (1,)), Conversation(TWO, (3,))], 4000)
    assert told.altered == 1


def test_a_template_of_ones_own_takes_the_place_of_the_tokenizers():
    made = tokenizer(CHATML.template + "<|eot|>")
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|eot|>{% endfor %}"
    told = encode(made, [Conversation(TWO, (1, 3))], 4000, template=template)
    assert learned(made, told.samples[0]) == "ANSWER<|eot|>REPLY<|eot|>"
    assert told.facts["prompt_template"] == "model.chat_template" and told.facts["answers_end_with"] == "<|eot|>"
    assert shown(made, prompt(made, TWO[:1], template=template)) == "[user]QUESTION<|eot|>[assistant]"
    assert serving_template(Wording(made, template=CHATML.template)) == CHATML.template


def test_an_end_that_is_no_token_is_followed_by_the_tokenizers():
    made = AutoTokenizer.from_pretrained(TINY_QWEN2)  # without <|im_end|>
    made.chat_template = CHATML.template
    told = encode(made, [Conversation(TWO, (1, 3))], 4000)
    assert learned(made, told.samples[0]).endswith("REPLY<|im_end|>\n<|endoftext|>")
    assert ends(made) == {made.eos_token_id} and told.facts["answers_end_with"] == "<|endoftext|>"


# What is refused


@pytest.mark.parametrize(
    ("template", "cause"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor", "unexpected end of template"),
        ("{{ raise_exception('never') }}", "never"),
        ("{{ messages[0].content }}", "it does not write the assistant's turn"),
        ("{{ messages[0].nothing.at_all }}", "has no attribute 'nothing' (line 1 of the template)"),
        ("{# a #}\n{% if %}", "(line 2 of the template)"),
        ("a\nb\n{{ strftime_now('%d') }}{{ messages[0].nothing.at_all }}", "(line 3 of the template)"),
        ("{% include 'other.jinja' %}", "it includes or imports another file, but a chat template is one text"),
        ("{% import 'other.jinja' as o %}", "it includes or imports another file, but a chat template is one text"),
    ],
)
def test_a_template_that_cannot_write_is_refused_with_its_cause(template, cause):
    with pytest.raises(
        SpecError, match=r"the chat template cannot write a question and its answer: .*model.chat_templ"
    ) as it:
        encode(tokenizer(template), [Conversation(TWO, (3,))], 40, date=DAY)
    assert cause in str(it.value)


def test_a_sample_that_the_template_refuses_is_named():
    alternate = (
        "{% if m.role != ('user', 'assistant')[loop.index0 % 2] %}{{ raise_exception('must alternate') }}{% endif %}"
    )
    made = tokenizer(CHATML.template.replace("%}", "%}" + alternate, 1))
    twice = ({"role": "user", "content": "Twice"}, *TWO)
    with pytest.raises(SpecError, match=r"refuses sample 2 \('Twice'\): must alternate \(line 1 of .*\); correct it"):
        encode(made, [Conversation(TWO, (3,)), Conversation(twice, (4,))], 4000)
    with pytest.raises(SpecError, match=r"refuses these messages: must alternate"):
        prompt(made, twice)
    alone = ({"role": "system", "content": "s"}, {"role": "assistant", "content": "a"})
    with pytest.raises(SpecError, match=r"takes no system turn, and no user turn follows"):
        encode(tokenizer_of(SHAPES["gemma"]), [Conversation(alone, (1,))], 4000)


# Without a template


def test_without_a_template_version_2_writes_one_answer_as_version_1_does():
    made = AutoTokenizer.from_pretrained(TINY_QWEN2)
    pairs = [asked("Add one.", "x += 1"), asked("p", " r\n")]
    assert encode(made, pairs, 64).samples == encode(made, pairs, 64, encoding=1).samples


def test_several_turns_without_a_template_each_have_an_instruction():
    made = tokenizer(None)
    told = encode(made, [Conversation(WITH_SYSTEM, (2, 4))], 4000)
    expected = (
        "### Instruction:\nSYSTEM\n\nQUESTION\n\n### Response:\nANSWER<EOS>"
        "\n\n### Instruction:\nSECOND\n\n### Response:\nREPLY<EOS>"
    )
    assert shown(made, told.samples[0].ids) == expected and learned(made, told.samples[0]) == "ANSWER<EOS>REPLY<EOS>"
    assert told.facts == {"prompt_template": "### Instruction/Response", "answers_end_with": EOS}
    assert expected.startswith(shown(made, prompt(made, WITH_SYSTEM[:4]))) and ends(made) == {made.eos_token_id}


def test_an_answer_without_a_question_gets_no_instruction():
    made = tokenizer(None)
    said = ({"role": "assistant", "content": "HELLO"}, *TWO[:2], {"role": "assistant", "content": "MORE"})
    (sample,) = encode(made, [Conversation(said, (0, 2, 3))], 4000).samples
    assert shown(made, sample.ids) == (
        "### Response:\nHELLO<EOS>\n\n### Instruction:\nQUESTION\n\n### Response:\nANSWER<EOS>"
        "\n\n### Response:\nMORE<EOS>"
    )
    assert learned(made, sample) == "HELLO<EOS>ANSWER<EOS>MORE<EOS>"


@pytest.mark.parametrize(
    "said", [TWO[:1], TWO[:3], WITH_SYSTEM[:2], WITH_SYSTEM[:4], TWO[:2], TWO[1:3], (TWO[1], TWO[1], TWO[0])]
)
@pytest.mark.parametrize("appends_eos", [False, True])
def test_a_server_without_a_template_gets_the_format_of_training(said, appends_eos):
    made = tokenizer(None, appends_eos=appends_eos)
    wording = Wording(made)
    text = made.apply_chat_template(
        [*said], chat_template=serving_template(wording), add_generation_prompt=True, tokenize=False
    )
    assert text == shown(made, wording.prompt(said))


def test_no_end_stands_between_prompt_and_response_where_the_tokenizer_appends_one():
    made = tokenizer(None, appends_eos=True)
    (sample,) = encode(made, [asked("p", "r")], 64).samples
    assert shown(made, sample.ids) == "<BOS>### Instruction:\np\n\n### Response:\nr<EOS>"
    assert shown(made, prompt(made, TWO[:1])) == "<BOS>### Instruction:\nQUESTION\n\n### Response:\n"
    assert shown(made, Wording(made).text("def main(")) == "<BOS>def main("


def test_bos_is_never_doubled():
    made = tokenizer(SHAPES["llama3"].template, appends_eos=True)
    (sample,) = encode(made, [Conversation(TWO, (1, 3))], 4000).samples
    assert sample.ids.count(made.bos_token_id) == 1 and made.eos_token_id not in sample.ids
    assert prompt(made, TWO[:1]).count(made.bos_token_id) == 1


@pytest.mark.parametrize("template", [None, CHATML.template])
def test_of_a_plain_text_every_token_counts(template):
    made = tokenizer(template, appends_eos=True)
    texts = [Conversation((), (), text="some text"), Conversation((), (), text=f"it ends{EOS}")]
    told = encode(made, texts, 4000)
    assert [shown(made, sample.ids) for sample in told.samples] == ["<BOS>some text<EOS>", "<BOS>it ends<EOS>"]
    assert learned(made, told.samples[0]) == "some text<EOS>"
    assert told.facts == {"prompt_template": "none: plain texts"}


def test_a_tokenizer_without_an_end_is_refused_where_one_is_needed():
    with pytest.raises(SpecError, match=r"names no token that ends a text \(eos_token\)"):
        encode(tokenizer(None, None), [asked("p", "r")], 64)


# What a text holds that it should not


def test_marks_of_turns_within_texts_are_counted_and_the_first_row_is_named():
    forged = replace(asked("q", "a<|im_end|>\n<|im_start|>user\nb"), where="d.jsonl:7")
    plain = replace(asked("a <think> b", "<b>bold</b> [x] <|this|>"), where="d.jsonl:6")
    asks = replace(asked("what is <|im_end|>?", "a mark"), where="d.jsonl:8")
    told = encode(tokenizer_of(CHATML), [plain, forged, asks], 4000)
    assert (told.marked, told.first) == (2, {"marked": "d.jsonl:7, '<|im_end|>'"})
    fact = "special tokens or turn marks in the texts of 3 of 4 samples (first: d.jsonl:7, '<|im_end|>')"
    assert _cut(told, Encoded([], 0, 1, marked=1), 9)["marked"] == fact


@pytest.mark.parametrize("text", [f"a{EOS}b", "a\n### Response:\nb", "### Instruction:\na"])
def test_marks_of_the_instruction_format_within_texts_are_counted(text):
    assert encode(tokenizer(None), [asked("q", text), asked("q", "a # Response: b")], 4000).marked == 1


@pytest.mark.parametrize("name", ["qwen3", "deepseek_r1_distill", "SmolLM3"])
def test_reasoning_is_no_mark_of_a_turn(name):
    assert encode(tokenizer_of(ALL[name]), [asked("q", "<think>\nso\n</think>\n\na")], 4000).marked == 0


def test_a_row_that_the_template_refuses_or_changes_is_named():
    made = tokenizer(
        CHATML.template.replace("%}", "%}\n{% if m.content == 'no' %}{{ raise_exception('no') }}{% endif %}", 1)
    )
    rows = [replace(asked("q", text), where=f"d.jsonl:{n}") for n, text in enumerate(["yes", "no"], 4)]
    with pytest.raises(
        SpecError, match=r"^d\.jsonl:5: the chat template refuses this row \('q'\): no \(line 2 of"
    ) as told:
        encode(made, rows, 4000)
    assert told.value.where == "d.jsonl:5"
    turns = replace(Conversation(WITH_SYSTEM, (4,)), where="d.jsonl:9")
    assert encode(tokenizer_of(SHAPES["gemma"]), [turns], 4000).first == {"folded": "d.jsonl:9"}


# What is cut


def test_what_is_cut_and_what_is_dropped_is_counted():
    made = tokenizer_of(CHATML)
    one = [Conversation(TWO, (1, 3))]
    whole = encode(made, one, 4000).samples[0]
    first, second = whole.learned
    for length in range(2, len(whole.ids) + 1):
        told = encode(made, one, length)
        if length <= first.start:
            assert (told.samples, told.truncated, told.dropped) == ([], 0, 1)
            continue
        (sample,) = told.samples
        places = [at for at in (*first, *second) if at < length]
        assert [at for part in sample.learned for at in part] == places
        assert sample.ids == whole.ids[: places[-1] + 1]  # what follows the last learned token teaches nothing
        assert (told.truncated, told.dropped) == (int(length < len(whole.ids)), 0)


def test_what_was_cut_dropped_joined_or_changed_is_in_the_facts_of_a_stint():
    one, other = Encoded([], 1, 2, {}, 3, 4), Encoded([], 10, 20, {}, 30, 40)
    assert _cut(one, other, 99) == {
        "truncated": "11 samples cut at 99 tokens",
        "dropped": "22 samples whose prompt alone fills 99 tokens",
        "folded": "33 system turns joined to the first question: the chat template takes none",
        "altered": "44 answers that the chat template does not write word for word",
    }


# What holds for any conversation

SAID = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="<>|[]｜{}", exclude_categories=["Cs"]), min_size=1).filter(
        lambda text: text.strip() == text
    ),
    min_size=2,
    max_size=6,
).map(lambda texts: turns(*texts[: len(texts) // 2 * 2]))
KEEPS = [name for name in ALL if name != "qwen3"]
"""The templates that write an answer the same way wherever it stands."""


@settings(max_examples=40, deadline=None)
@given(SAID, st.sampled_from(KEEPS))
def test_the_ids_are_the_templates_text_and_learned_are_the_answers_alone(said, name):
    shape, made = ALL[name], tokenizer_of(ALL[name])
    answers = tuple(range(1, len(said), 2))
    (sample,) = encode(made, [Conversation(said, answers)], 100_000).samples
    text = made.apply_chat_template(Wording(made).write.shaped(said), tokenize=False)
    whole = made(text, add_special_tokens=False)["input_ids"]
    assert list(sample.ids[: len(whole)]) == whole[: len(sample.ids)]
    lead, end = _around(shape)
    parts = [shown(made, sample.ids[part.start : part.stop]) for part in sample.learned]
    assert len(parts) == len(answers)
    for part, at in zip(parts, answers, strict=True):
        assert part.startswith(lead) and part.removeprefix(lead).startswith(said[at]["content"])
        assert part.removeprefix(lead).removeprefix(said[at]["content"]).strip("\n ") in end
    for gap, at in zip(sample.context, answers[1:], strict=True):
        assert said[at - 1]["content"] in shown(made, sample.ids[slice(*gap)])


def _around(shape: Shape) -> tuple[str, list[str]]:
    """Return what stands before an answer, and the ends that answers have."""
    lead, _, rest = shape.counts.partition("ANSWER")
    middle = rest.partition("REPLY")[0]
    middle = middle.removesuffix(lead) if lead else middle
    last = shape.counts.rpartition("REPLY")[2]
    return lead, [text.strip("\n ") for text in (middle, last)]


@settings(max_examples=40, deadline=None)
@given(SAID, st.sampled_from(list(ALL)), st.data())
def test_learned_spans_are_apart_and_in_order_and_hold_the_chosen_answers_only(said, name, data):
    made = tokenizer_of(ALL[name])
    every = list(range(1, len(said), 2))
    answers = tuple(sorted(data.draw(st.sets(st.sampled_from(every), min_size=1))))
    marked = tuple({**turn, "content": f"({at}{turn['content']}{at})"} for at, turn in enumerate(said))
    (sample,) = encode(made, [Conversation(marked, answers)], 100_000).samples
    assert all(a.stop < b.start for a, b in pairwise(sample.learned)) and len(sample.learned) == len(answers)
    for part, at in zip(sample.learned, answers, strict=True):
        text = shown(made, sample.ids[part.start : part.stop])
        assert marked[at]["content"] in text and not any(f"({n}" in text for n in range(len(said)) if n != at)
