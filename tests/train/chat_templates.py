"""Chat templates written for the shapes of well-known ones, and tokenizers made on the spot for them.

Of each: what is learned of QUESTION, ANSWER, SECOND, REPLY by TRL's training twins (`counts`), where a prompt ends, and
the tokens that end an answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

BOS, EOS = "<BOS>", "<EOS>"
MARKS = re.compile(
    r"<\|[^|<>\s']+\|>|<｜[^｜<>\s']+｜>|</?think>|<(?:start|end)_of_\w+>|<turn\|>|<\|turn>|\[gMASK\]|<sop>"
)


@dataclass(frozen=True)
class Shape:
    template: str
    counts: str
    prompt: str
    ends: tuple[str, ...]
    eos: str = EOS


def tokenizer(template: str | None, eos: str | None = EOS, *, appends_eos: bool = False) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer whose added tokens are the marks of a template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "n"), ("an", "s"), ("Ċ", "Ċ"), ("Ġ", "t")]
    words = dict.fromkeys([BOS, *([eos] if eos else []), *alphabet, *(a + b for a, b in merges)])
    made = Tokenizer(models.BPE({word: at for at, word in enumerate(words)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if appends_eos:
        ids = [(text, made.token_to_id(text)) for text in (BOS, eos)]
        made.post_processor = processors.TemplateProcessing(single=f"{BOS} $A {eos}", special_tokens=ids)
    found = PreTrainedTokenizerFast(tokenizer_object=made, bos_token=BOS, eos_token=eos)
    found.add_tokens(sorted(set(MARKS.findall(template or "")) - {eos}), special_tokens=True)
    found.chat_template = template
    return found


@cache
def tokenizer_of(shape: Shape) -> PreTrainedTokenizerFast:
    return tokenizer(shape.template, shape.eos)


def shown(made: PreTrainedTokenizerFast, ids: list[int] | tuple[int, ...]) -> str:
    """Return token ids as text, special tokens included."""
    return made.convert_tokens_to_string(made.convert_ids_to_tokens(list(ids)))


def _each(user: str, assistant: str, asks: str, before: str = "", system: str = "") -> str:
    """Return a template of a branch for each role."""
    system = f"{{% elif m.role == 'system' %}}{system}" if system else ""
    return (
        f"{before}{{% for m in messages %}}{{% if m.role == 'user' %}}{user}"
        f"{{% elif m.role == 'assistant' %}}{assistant}{system}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{asks}{{% endif %}}"
    )


_REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
_TODAY = "{% set today = strftime_now('%d %b %Y') if strftime_now is defined else 'some day' %}"


def _chatml(lead: str = "", asks: str = "", before: str = "", last_only: bool = False, date: bool = False) -> str:
    lead = f"{{% if loop.last %}}{{{{ '{lead}' }}}}{{% endif %}}" if last_only else f"{{{{ '{lead}' }}}}"
    plain = r"{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    content = r"m.content.split('</think>')[-1].lstrip('\n')" if last_only else "m.content"
    answer = r"{{ '<|im_start|>assistant\n' }}" + lead + "{{ " + content + r" + '<|im_end|>\n' }}"
    asks = r"{{ '<|im_start|>assistant\n" + asks + "' }}"
    return (_TODAY if date else "") + _each(plain, answer, asks, before, plain)


_QWEN = (
    r"{% if messages[0].role != 'system' %}"
    r"{{ '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}"
)
_THOUGHT = r"<think>\n\n</think>\n\n"
_ROLE = r"'<|start_header_id|>' + m.role + '<|end_header_id|>\n\n'"
_LLAMA = f"{{{{ {_ROLE} + m.content | trim + '<|eot_id|>' }}}}"
_LLAMA_ASKS = r"{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
_GEMMA = (
    r"{{ '<start_of_turn>user\n' + m.content | trim + '<end_of_turn>\n' }}",
    r"{{ '<start_of_turn>model\n' + m.content | trim + '<end_of_turn>\n' }}",
    r"{{ '<start_of_turn>model\n' }}",
)
_TURN = (
    r"{{ '<|turn>user\n' + m.content + '<turn|>\n' }}",
    r"{{ '<|turn>model\n' + m.content + '<turn|>\n' }}",
    r"{{ '<|turn>model\n' }}",
)
_PHI = r"{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}"
_PHI3 = (
    r"{{ '<|user|>\n' + m.content + '<|end|>\n' }}",
    r"{{ '<|assistant|>\n' + m.content + '<|end|>\n' }}",
    r"{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}",
)
_COHERE = r"{{ '<|START_OF_TURN_TOKEN|><|%s|>' + m.content + '<|END_OF_TURN_TOKEN|>' }}"
_DEEPSEEK = (
    "{{ '<｜User｜>' + m.content }}",
    "{{ '<｜Assistant｜>' + m.content.split('</think>')[-1] + eos_token }}",
    r"{{ '<｜Assistant｜><think>\n' }}",
)

CHATML = "ANSWER<|im_end|>\nREPLY<|im_end|>\n"
THINKING = "<think>\n\n</think>\n\nANSWER<|im_end|>\n<think>\n\n</think>\n\nREPLY<|im_end|>\n"
IM_END = ("<|im_end|>",)
ASSISTANT = "<|im_start|>assistant\n"

PLAIN_CHATML = Shape(_chatml(), CHATML, ASSISTANT, IM_END)
THINKS = Shape(_chatml(_THOUGHT, r"<think>\n"), THINKING, ASSISTANT, IM_END)
NEMOTRON = Shape(
    _chatml("<think></think>", r"<think>\n"),
    "<think></think>ANSWER<|im_end|>\n<think></think>REPLY<|im_end|>\n",
    ASSISTANT,
    IM_END,
)
LLAMA3 = Shape(
    _each(_LLAMA, _LLAMA, _LLAMA_ASKS, "{{ bos_token }}", _LLAMA),
    "ANSWER<|eot_id|>REPLY<|eot_id|>",
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ("<|eot_id|>",),
)
PHI3 = Shape(
    _each(*_PHI3, system=r"{{ '<|system|>\n' + m.content + '<|end|>\n' }}"),
    "ANSWER<|end|>\nREPLY<|end|>\n<EOS>",
    "<|assistant|>\n",
    ("<|end|>",),
)
DEEPSEEK = Shape(
    _each(*_DEEPSEEK, "{{ bos_token }}", "{{ m.content }}"),
    "<｜Assistant｜>ANSWER<｜end▁of▁sentence｜><｜Assistant｜>REPLY<｜end▁of▁sentence｜>",
    "<｜Assistant｜>",
    ("<｜end▁of▁sentence｜>",),
    eos="<｜end▁of▁sentence｜>",
)
TURN = Shape(
    _each(*_TURN, "{{ bos_token }}", r"{{ '<|turn>system\n' + m.content + '<turn|>\n' }}"),
    "ANSWER<turn|>\nREPLY<turn|>\n",
    "<|turn>model\n",
    ("<turn|>",),
)

SHAPES: dict[str, Shape] = {
    "cohere": Shape(
        _each(
            _COHERE % "USER_TOKEN",
            _COHERE % "CHATBOT_TOKEN",
            "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}",
            "{{ bos_token }}",
            _COHERE % "SYSTEM_TOKEN",
        ),
        "ANSWER<|END_OF_TURN_TOKEN|>REPLY<|END_OF_TURN_TOKEN|>",
        "<|CHATBOT_TOKEN|>",
        ("<|END_OF_TURN_TOKEN|>",),
    ),
    "cohere2": Shape(
        _each(
            _COHERE % "USER_TOKEN",
            "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>' + m.content"
            " + '<|END_RESPONSE|><|END_OF_TURN_TOKEN|>' }}",
            "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>' }}",
            "{{ bos_token }}",
            _COHERE % "SYSTEM_TOKEN",
        ),
        "ANSWER<|END_RESPONSE|><|END_OF_TURN_TOKEN|>REPLY<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
        "<|START_RESPONSE|>",
        ("<|END_RESPONSE|>", "<|END_OF_TURN_TOKEN|>"),
    ),
    "deepseek_r1_distill": DEEPSEEK,
    "deepseekv3": DEEPSEEK,
    "diffusion_gemma": TURN,
    "gemma": Shape(
        _each(*_GEMMA, "{{ bos_token }}" + _REFUSES),
        "ANSWER<end_of_turn>\nREPLY<end_of_turn>\n",
        "<start_of_turn>model\n",
        ("<end_of_turn>",),
    ),
    "gemma3": Shape(
        _each(*_GEMMA, "{{ bos_token }}", r"{{ '<start_of_turn>user\n' + m.content + '\n\n' }}"),
        "ANSWER<end_of_turn>\nREPLY<end_of_turn>\n",
        "<start_of_turn>model\n",
        ("<end_of_turn>",),
    ),
    "gemma4": TURN,
    "glm4moe": Shape(
        _each(
            r"{{ '<|user|>\n' + m.content }}",
            r"{{ '<|assistant|>\n<think></think>\n' + m.content.strip() }}",
            "{{ '<|assistant|>' }}",
            "{{ '[gMASK]<sop>' }}",
            r"{{ '<|system|>\n' + m.content }}",
        ),
        "\n<think></think>\nANSWER<|user|>\n<think></think>\nREPLY<|user|>",
        "<|assistant|>",
        ("<|user|>",),
    ),
    "gptoss": Shape(
        _each(
            "{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}",
            "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content }}"
            "{% if loop.last and not add_generation_prompt %}{{ '<|return|>' }}{% else %}{{ '<|end|>' }}{% endif %}",
            "{{ '<|start|>assistant' }}",
            _TODAY + "{{ '<|start|>system<|message|>Current date: ' + today + '<|end|>' }}",
            r"{{ '<|start|>developer<|message|># Instructions\n\n' + m.content + '<|end|>' }}",
        ),
        "<|start|>assistant<|channel|>final<|message|>ANSWER<|end|>"
        "<|start|>assistant<|channel|>final<|message|>REPLY<|return|>",
        "<|start|>assistant",
        ("<|return|>",),
    ),
    "lfm2": PLAIN_CHATML,
    "lfm2_2_5": PLAIN_CHATML,
    "lfm2_2_5_vl": PLAIN_CHATML,
    "llama3": LLAMA3,
    "llama3_1": LLAMA3,
    "llama3_2": Shape(
        _each(
            _LLAMA,
            _LLAMA,
            _LLAMA_ASKS,
            "{{ bos_token }}"
            + _TODAY
            + r"{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + today + '\n\n' }}"
            "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}{{ '<|eot_id|>' }}",
        ),
        "ANSWER<|eot_id|>REPLY<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ("<|eot_id|>",),
    ),
    "muse_glimmer": Shape(
        _each(
            "{{ '<|start|>user<|message|>' + m.content + '<|eot|>' }}",
            "{{ '<|start|>assistant to=user<|message|>' + m.content + '<|eot|>' }}",
            "{{ '<|start|>assistant' }}",
            "",
            "{{ '<|start|>system<|message|>' + m.content + '<|eot|>' }}",
        ),
        "<|start|>assistant to=user<|message|>ANSWER<|eot|><|start|>assistant to=user<|message|>REPLY<|eot|>",
        "<|start|>assistant",
        ("<|eot|>",),
    ),
    "nemotron_3_5_lightning": NEMOTRON,
    "nemotron_3_nano": NEMOTRON,
    "nemotron_3_super": NEMOTRON,
    "nemotron_3_ultra": NEMOTRON,
    "phi3": PHI3,
    "phi3_5": PHI3,
    "qwen2_5": Shape(_chatml(before=_QWEN), "\nANSWER<|im_end|>\n\nREPLY<|im_end|>\n", ASSISTANT, IM_END),
    "qwen2_5_vl": PLAIN_CHATML,
    "qwen3": Shape(_chatml(_THOUGHT, last_only=True), THINKING, ASSISTANT, IM_END),
    "qwen3_5_nothink": Shape(_chatml(_THOUGHT, _THOUGHT), THINKING, ASSISTANT + "<think>\n\n</think>\n\n", IM_END),
    "qwen3_5_think": THINKS,
    "qwen3_6": THINKS,
    "qwen3_8": THINKS,
    "qwen3_instruct_2507": PLAIN_CHATML,
    "qwen3_vl": PLAIN_CHATML,
}
"""The templates of TRL 1.16, by shape."""

OTHERS: dict[str, Shape] = {
    "ChatML with another eos": Shape(_chatml(), CHATML, ASSISTANT, IM_END, eos="<|endoftext|>"),
    "ChatML that ignores add_generation_prompt": Shape(
        r"{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}",
        CHATML,
        ASSISTANT,
        IM_END,
    ),
    "SmolLM3": Shape(_chatml(_THOUGHT, date=True), THINKING, ASSISTANT, IM_END),
    "Phi-4": Shape(
        _each(
            "{{ '<|im_start|>user<|im_sep|>' + m.content + '<|im_end|>' }}",
            "{{ '<|im_start|>assistant<|im_sep|>' + m.content + '<|im_end|>' }}",
            "{{ '<|im_start|>assistant<|im_sep|>' }}",
            "",
            "{{ '<|im_start|>system<|im_sep|>' + m.content + '<|im_end|>' }}",
        ),
        "ANSWER<|im_end|>REPLY<|im_end|>",
        "<|im_start|>assistant<|im_sep|>",
        IM_END,
    ),
    "Mistral": Shape(
        _each("{{ '[INST] ' + m.content + ' [/INST]' }}", "{{ ' ' + m.content + eos_token }}", "", "{{ bos_token }}"),
        " ANSWER<EOS> REPLY<EOS>",
        "[/INST]",
        (EOS,),
    ),
    "Mistral whose system turn moves to the last question": Shape(
        "{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}"
        "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}{{ bos_token }}"
        "{% set asked = messages | selectattr('role', 'equalto', 'user') | list %}"
        "{% for m in messages %}{% if m.role == 'user' %}"
        "{{ '[INST] ' + (system if m == asked[-1] else '') + m.content + '[/INST]' }}"
        "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
        " ANSWER<EOS> REPLY<EOS>",
        "[/INST]",
        (EOS,),
    ),
    "OLMo 2": Shape(
        _each(
            r"{{ '<|user|>\n' + m.content + '\n' }}",
            r"{{ '<|assistant|>\n' + m.content + eos_token }}{% if not loop.last %}{{ '\n' }}{% endif %}",
            r"{{ '<|assistant|>\n' }}",
            "{{ bos_token }}",
            r"{{ '<|system|>\n' + m.content + '\n' }}",
        ),
        "ANSWER<EOS>REPLY<EOS>",
        "<|assistant|>\n",
        (EOS,),
    ),
    "a template without an end": Shape(
        _each("{{ 'U: ' + m.content + '\n' }}", "{{ 'A: ' + m.content + '\n' }}", "{{ 'A: ' }}"),
        "ANSWER\nREPLY\n<EOS>",
        "A: ",
        (EOS,),
    ),
    "parts": Shape(
        r"{% for m in messages %}{{ m.role.capitalize() + ':' }}{% for part in m.content %}{% if part.type == 'text' %}"
        r"{{ ' ' + part.text }}{% endif %}{% endfor %}{{ '<end_of_utterance>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
        " ANSWER<end_of_utterance>\n REPLY<end_of_utterance>\n",
        "Assistant:",
        ("<end_of_utterance>",),
    ),
}
"""Shapes for which TRL has no twin; their values follow from the same rule."""
