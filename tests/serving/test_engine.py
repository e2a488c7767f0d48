"""The engine writes prompts as training did, and stops where training ended answers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gridsweep.serving.taught import Taught
from gridsweep.sweep.experiments import Model

pytestmark = pytest.mark.train

ASKED = [{"role": "user", "content": "Add one."}]
TEMPLATE = (
    "{{ strftime_now('%d %b %Y') }}|{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    "{{ m.role + ':' + m.content + '<|pad|>' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def test_version_2_stops_at_the_templates_end_and_repeats_the_date_and_the_folding():
    from gridsweep.serving.engine import Engine

    engine = Engine(Model("tiny-qwen2", chat_template=TEMPLATE), [], Taught(2, datetime(2025, 2, 3, tzinfo=UTC)))
    assert engine.has_chat_template and engine.ends == {0, 1}
    assert engine.tokenizer.decode(engine.chat(ASKED)) == "03 Feb 2025|user:Add one.<|pad|>assistant:"
    briefly = [{"role": "system", "content": "Be brief."}, *ASKED]
    assert engine.tokenizer.decode(engine.chat(briefly)) == "03 Feb 2025|user:Be brief.\n\nAdd one.<|pad|>assistant:"
    with pytest.raises(ValueError, match="refuses these messages: it takes no system turn"):
        engine.chat(briefly[:1])


def test_a_folder_without_a_version_is_served_as_it_was_trained():
    from gridsweep.serving.engine import Engine

    engine = Engine(Model("tiny-qwen2"), [])
    turns = [*ASKED, {"role": "assistant", "content": "x += 1"}, {"role": "user", "content": "And two."}]
    told = "### Instruction:\nAdd one.\n\nx += 1\n\nAnd two.\n\n### Response:\n"
    assert engine.tokenizer.decode(engine.chat(turns)) == told and engine.ends == {0}
