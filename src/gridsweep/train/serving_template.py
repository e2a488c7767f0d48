"""The chat template for a server that writes prompts itself, so that it writes those of training."""

from __future__ import annotations

from gridsweep.train.plain_format import BETWEEN, RESPONSE, TEMPLATE, leading
from gridsweep.train.wording import Wording

_FOLD = """{% if messages and messages[0]['role'] == 'system' and messages[1:] and messages[1]['role'] == 'user' %}
{% set gridsweep_asked = messages[0]['content'] ~ '\\n\\n' ~ messages[1]['content'] %}
{% set messages = [{'role': 'user', 'content': gridsweep_asked}] + messages[2:] %}
{% endif %}
"""


def serving_template(wording: Wording) -> str | None:
    """Return a template that writes the prompts of training; None if the tokenizer's own does.

    It fixes the date, joins a system turn that the template refuses to the first question, and ends the prompt where
    the learned answers begin.
    """
    if wording.encoding == 1:
        return None if wording.tokenizer.chat_template else _joined(wording)
    if wording.form is None:
        return _instruction(wording)
    source, form = wording.write.dated_source, wording.form
    text = source.removesuffix("\n")  # Jinja drops it at the end of a template, but not within one
    opener = "" if form.opener == form.lead else form.opener
    if opener or form.added:
        cut = f"gridsweep_text[:-{len(opener)}]" if opener else "gridsweep_text"
        text = (
            f"{{% set gridsweep_text %}}\n{text}{{{{ '' }}}}{{% endset %}}"
            f"{{{{ ({cut} if add_generation_prompt and gridsweep_text.endswith({opener!r}) else gridsweep_text)"
            f" ~ ({form.added!r} if add_generation_prompt else '') }}}}"
        )
    if form.folds:
        text = _FOLD + text
    changed = text != wording.write.source.removesuffix("\n") or wording.template is not None
    return text if changed else None


def _joined(wording: Wording) -> str:
    """Return a template of version 1's instruction format: all turns as one instruction."""
    tokenizer = wording.tokenizer
    first = str(tokenizer.decode(tokenizer("")["input_ids"]))
    head, tail = TEMPLATE.split("{prompt}")
    joined = f"(messages | map(attribute='content') | join({BETWEEN!r}))"
    # One expression, because Jinja drops a newline at the end of a template's text.
    return f"{{{{ {first + head!r} ~ {joined} ~ {tail!r} }}}}"


def _instruction(wording: Wording) -> str:
    """Return a template of the instruction format: an instruction for each answer that follows another turn."""
    tokenizer = wording.tokenizer
    first, end = str(tokenizer.decode(leading(tokenizer))), tokenizer.eos_token or ""
    head, tail = TEMPLATE.split("{prompt}")
    opening = (
        f"('' if ns.first else {BETWEEN!r}) ~ "
        f"(({head!r} ~ (ns.asked | join({BETWEEN!r})) ~ {tail!r}) if ns.any else {RESPONSE!r})"
    )
    return (
        "{% set ns = namespace(asked=[], first=true, any=false) %}"
        f"{{{{ {first!r} }}}}"
        "{% for message in messages %}"
        "{% if message['role'] == 'assistant' %}"
        f"{{{{ {opening} ~ message['content'] ~ {end!r} }}}}"
        "{% set ns.asked = [] %}{% set ns.first = false %}{% set ns.any = false %}"
        "{% else %}{% set ns.any = true %}"
        "{% if message['content'] %}{% set ns.asked = ns.asked + [message['content']] %}{% endif %}"
        "{% endif %}{% endfor %}"
        f"{{% if add_generation_prompt %}}{{{{ {opening} }}}}{{% endif %}}"
    )
