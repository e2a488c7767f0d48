"""A Modelfile for Ollama: the base, the adapter, the context, what ends an answer, and the prompts of training.

Ollama writes prompts by a Go template. This module finds out by probes what a chat template writes around turns, says
the same in Go, and checks longer conversations against it. A chat template that does more (dates of turns, tools,
conditions on the content) is not said at all, because a template that is nearly right gives bad answers in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gridsweep.errors import AdapterError
from gridsweep.serving.servable import described, shown
from gridsweep.sweep.experiments import Model

MODELFILE, BASE, ADAPTER, GGUF = "Modelfile", "./base", "./adapter", "./adapter.gguf"
LONGEST = 16384
"""Tokens of context at most, as on Kubernetes: a longer one costs memory."""
READS = {"LlamaForCausalLM": "Llama", "MistralForCausalLM": "Mistral", "Gemma2ForCausalLM": "Gemma 2"}
"""Architectures of which Ollama reads a LoRA as safetensors, by `ConvertAdapter` of its source; others need GGUF."""

Turns = Sequence[dict[str, str]]
_TEXTS = ("Sq1system", "Sq2asked", "Sq3answer", "Sq4again", "Sq5reply", "Sq6last")


@dataclass(frozen=True, slots=True)
class Around:
    """What a chat template writes around turns.

    `alone` stands before the first question where there is no system turn, `system` and `asked` around a system turn;
    `answer` between a question and a known answer, `again` between that and the next question, `last` after the last
    question, where the answer begins.
    """

    alone: str
    system: str
    asked: str
    answer: str
    again: str
    last: str

    def written(self, turns: Turns) -> str:
        """Return the prompt of a conversation: an optional system turn, then questions and answers in turns."""
        begins = turns[0]["role"] == "system"
        text = f"{self.system}{turns[0]['content']}{self.asked}" if begins else self.alone
        rest = turns[1:] if begins else turns
        for number, turn in enumerate(rest, 1):
            after = self.last if number == len(rest) else self.answer if turn["role"] == "user" else self.again
            text += turn["content"] + after
        return text

    def template(self) -> str | None:
        """Return the same as a Go template for Ollama; None for texts that Go or a Modelfile would misread."""
        texts = (self.alone, self.system, self.asked, self.answer, self.again, self.last)
        if any("{{" in text or "}}" in text or '"""' in text for text in texts):
            return None
        # No markers that trim spaces: every space and line break of these texts counts.
        return (
            f"{{{{ if .System }}}}{self.system}{{{{ .System }}}}{self.asked}{{{{ else }}}}{self.alone}{{{{ end }}}}"
            "{{ range $i, $turn := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
            f'{{{{ if eq $turn.Role "user" }}}}{{{{ $turn.Content }}}}'
            f"{{{{ if $last }}}}{self.last}{{{{ else }}}}{self.answer}{{{{ end }}}}"
            '{{ else if eq $turn.Role "assistant" }}{{ $turn.Content }}'
            f"{{{{ if not $last }}}}{self.again}{{{{ end }}}}{{{{ end }}}}{{{{ end }}}}"
        )


@dataclass(frozen=True, slots=True)
class Prompts:
    """What a Modelfile needs to know of a base: see the fields of `Around`, None where they do not say it all.

    `stops` are texts that end an answer, `context` is the base's longest context in tokens.
    """

    around: Around | None
    stops: tuple[str, ...]
    context: int | None
    architecture: str


def around(write: Callable[[Turns], str], bos: str | None) -> Around | None:
    """Return what `write`, which turns a conversation into a prompt, writes around turns.

    The begin-of-sequence token is left out, because Ollama adds it. None if the prompts of longer conversations are not
    made of these pieces; `write` may raise anything for a conversation that it refuses.
    """
    system, asked, answer, again, reply, last = (
        {"role": role, "content": text}
        for role, text in zip(("system", "user", "assistant", "user", "assistant", "user"), _TEXTS, strict=True)
    )

    def pieces(*turns: dict[str, str]) -> list[str]:
        text = write(turns)
        found = [text.removeprefix(bos) if bos else text]
        for turn in turns:
            *before, rest = found
            head, mark, tail = rest.partition(turn["content"])
            if not mark:
                raise ValueError(f"{turn['content']} is missing")
            found = [*before, head, tail]
        return found

    try:
        alone, end = pieces(asked)
        begin, between, same = pieces(system, asked)
        _, to_answer, to_again, also = pieces(asked, answer, again)
        made = Around(alone, begin, between, to_answer, to_again, end)
        if (same, also) != (end, end):
            return None
        for turns in ((asked, answer, again, reply, last), (system, asked, answer, again, reply, last)):
            if write(turns).removeprefix(bos or "") != made.written(turns):
                return None
    except Exception:  # a chat template can raise whatever its expressions raise
        return None
    return made


def modelfile(name: str, base: Model, prompts: Prompts, trained: int, *, on_hub: bool) -> str:
    """Return the text of a Modelfile that lies beside the folder `adapter`; `trained` is the training's length.

    `on_hub` says whether the base is a repository of the hub rather than a folder.
    """
    reads = READS.get(prompts.architecture)
    template = prompts.around.template() if prompts.around else None
    lines = [f"# {name} on {described(base)}. Not tried with Ollama by gridsweep: compare some answers first.", "#"]
    if on_hub:
        revision = f" --revision {base.revision}" if base.revision else ""
        lines += [f"#   hf download {base.id}{revision} --local-dir base"]
    else:
        lines += [f"# Put the folder of the base that the sweep trained on, or a link to it, into {BASE}."]
    if reads is None:
        lines += [
            f"# Ollama reads an adapter of {shown(prompts.architecture)} as GGUF only. With llama.cpp:",
            f"#   python convert_lora_to_gguf.py --base base --outfile {GGUF} {ADAPTER}",
        ]
    lines += [f"#   ollama create {name} -f {MODELFILE}", "#"]
    lines += ["# A GGUF file of the same model serves as base too; a quantized one answers a little differently."]
    lines += [f"FROM {BASE}", f"ADAPTER {ADAPTER if reads else GGUF}", ""]
    lines += [f"# Trained on conversations of at most {trained} tokens, question and answer together."]
    lines += [f"PARAMETER num_ctx {min(prompts.context or LONGEST, LONGEST)}"]
    lines += [f'PARAMETER stop "{stop}"' for stop in prompts.stops if '"' not in stop and stop.strip()]
    if template is None:
        lines += [
            "",
            "# No TEMPLATE: the chat template of the base cannot be said in Ollama's form. Ollama takes the one that",
            "# it knows for the base; compare what it writes with the training (gridsweep: docs/templates.md).",
        ]
    else:
        lines += ["", f'TEMPLATE """{template}"""']
    return "\n".join(lines) + "\n"


def check(name: str, rslora: bool) -> None:
    """Raise `AdapterError` for an adapter that Ollama would scale wrongly."""
    if rslora:
        raise AdapterError(
            f"{name} is scaled by alpha / sqrt(r) (rslora), and Ollama scales by alpha / r; "
            "serve it with vLLM, or train without recipe.rslora"
        )
