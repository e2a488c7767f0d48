"""A Modelfile: what it says, and that its template writes what the chat template of the training writes."""

from __future__ import annotations

import itertools
import re

import pytest
from jinja2 import Environment

from gridsweep.errors import AdapterError
from gridsweep.serving import ollama
from gridsweep.serving.ollama import Around, Prompts, around, modelfile
from gridsweep.sweep.experiments import Model

CHATML = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INSTRUCTION = (
    "{{ '<s>' }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + '</s>' }}"
    "{% else %}{{ raise('no system turn') }}{% endif %}{% endfor %}"
)
COUNTING = "{% for m in messages %}{{ loop.index ~ m.content }}{% endfor %}"
"""A template that numbers the turns: no template of Ollama's pieces says so."""


def writer(template: str):
    environment = Environment()

    def refuse(why):
        raise ValueError(why)

    environment.globals["raise"] = refuse
    made = environment.from_string(template)
    return lambda turns: made.render(messages=turns, add_generation_prompt=True)


def conversations():
    for system, questions in itertools.product((False, True), (1, 2, 3)):
        turns = [{"role": "system", "content": "Be brief."}] if system else []
        for n in range(questions):
            turns += [{"role": "user", "content": f"  Question {n}?\n"}, {"role": "assistant", "content": f"Yes {n}. "}]
        yield turns[:-1]


def in_go(template: str, turns) -> str:
    """What Ollama writes by a template of this form: its few constructs of Go's templates, put in Jinja's words."""
    said = template
    for go, jinja in (
        ("{{ if .System }}", "{% if system %}"),
        ("{{ .System }}", "{{ system }}"),
        ("{{ range $i, $turn := .Messages }}", "{% for turn in messages %}"),
        ("{{ $last := eq (len (slice $.Messages $i)) 1 }}", "{% set last = loop.last %}"),
        ('{{ if eq $turn.Role "user" }}', "{% if turn.role == 'user' %}"),
        ('{{ else if eq $turn.Role "assistant" }}', "{% elif turn.role == 'assistant' %}"),
        ("{{ $turn.Content }}", "{{ turn.content }}"),
        ("{{ if $last }}", "{% if last %}"),
        ("{{ if not $last }}", "{% if not last %}"),
        ("{{ else }}", "{% else %}"),
    ):
        assert go in said, go
        said = said.replace(go, jinja)
    *heads, tail = said.split("{{ end }}")
    assert tail == "" and len(heads) == 5
    # Go ends each block with the same word: the fourth ends the `if` of the role, the fifth the loop.
    said = "{% endif %}".join(heads) + "{% endfor %}"
    assert not re.search(r"\{\{ (if|else|range|end|\$)", said)
    system = next((turn["content"] for turn in turns if turn["role"] == "system"), "")
    return Environment(keep_trailing_newline=True).from_string(said).render(messages=turns, system=system)


def test_the_template_writes_what_the_chat_template_writes():
    write = writer(CHATML)
    made = around(write, None)
    template = made.template()
    for turns in conversations():
        assert made.written(turns) == in_go(template, turns) == write(turns)
    assert made.alone == "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n"


@pytest.mark.parametrize("template", [INSTRUCTION, COUNTING], ids=["refuses a system turn", "numbers the turns"])
def test_what_the_pieces_do_not_say_is_not_said(template):
    assert around(writer(template), "<s>") is None


def test_the_begin_of_sequence_is_left_to_ollama():
    with_bos = around(writer("{{ '<s>' }}" + CHATML), "<s>")
    assert with_bos == around(writer(CHATML), None)


def test_texts_that_go_would_read_are_no_template():
    plain = Around("", "", "", "a", "b", "c")
    assert plain.template() is not None
    for text in ("{{ .Prompt }}", '"""', "}}"):
        assert Around(text, "", "", "a", "b", "c").template() is None


QWEN = Model("Qwen/Qwen2.5-Coder-7B-Instruct", "c03e6d3")


def test_a_modelfile_says_what_ollama_needs():
    pieces = around(writer(CHATML), None)
    text = modelfile("r8-a1", QWEN, Prompts(pieces, ("<|im_end|>", "\n"), 32768, "Qwen2ForCausalLM"), 384, on_hub=True)
    assert "\nFROM ./base\nADAPTER ./adapter.gguf\n" in text
    assert "hf download Qwen/Qwen2.5-Coder-7B-Instruct --revision c03e6d3 --local-dir base" in text
    assert "python convert_lora_to_gguf.py --base base --outfile ./adapter.gguf ./adapter" in text
    assert 'PARAMETER num_ctx 16384\nPARAMETER stop "<|im_end|>"\n\nTEMPLATE """' in text
    assert "at most 384 tokens" in text and "Not tried with Ollama" in text
    assert text.endswith('"""\n') and pieces.template() in text


def test_a_llama_needs_no_conversion_and_a_template_that_cannot_be_said_is_left_out():
    text = modelfile("a", Model("base"), Prompts(None, (), None, "LlamaForCausalLM"), 512, on_hub=False)
    assert "\nFROM ./base\nADAPTER ./adapter\n" in text and "convert_lora" not in text
    assert "TEMPLATE " not in text and "# No TEMPLATE: " in text and "hf download" not in text


def test_an_adapter_that_ollama_would_scale_wrongly_is_refused():
    ollama.check("r8-a1", rslora=False)
    with pytest.raises(AdapterError, match=r"r8-a1 is scaled by alpha / sqrt\(r\).*serve it with vLLM"):
        ollama.check("r8-a1", rslora=True)


@pytest.mark.train
def test_an_export_for_ollama_writes_the_prompts_of_training(run_folder, tmp_path, gridsweep):
    code, out, err = gridsweep("export", "e01", run_folder, "--to", tmp_path / "out", "--ollama")
    assert code == 0, err
    assert "was not tried with Ollama" in out
    text = (tmp_path / "out" / "Modelfile").read_text()
    assert (tmp_path / "out" / "adapter" / "adapter_config.json").exists()
    template = re.search(r'TEMPLATE """(.*)"""', text, re.S)[1]
    assert in_go(template, [{"role": "user", "content": "Go."}]) == "### Instruction:\nGo.\n\n### Response:\n"
    assert "PARAMETER num_ctx 2048\n" in text and "PARAMETER stop " in text
    assert "ADAPTER ./adapter.gguf" in text and str(run_folder) not in text
