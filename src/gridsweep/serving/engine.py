"""The base model with its adapters: text generation, with concurrent requests interleaved token by token."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any  # PEFT's model

import torch

from gridsweep.errors import SpecError
from gridsweep.serving.pieces import decoded, until_stop
from gridsweep.serving.servable import Servable
from gridsweep.serving.taught import Taught
from gridsweep.serving.wire import Sampling
from gridsweep.sweep.experiments import Model
from gridsweep.train.device import device_and_dtype
from gridsweep.train.model import load_base
from gridsweep.train.wording import Wording

UNKNOWN_LENGTH = 2048


class Engine:
    """A model loaded once; several threads may call `generate`.

    The lock is held for one token, not for a whole text, so requests for different adapters take turns. Each request
    has its own cache of keys and values, and a request whose client disconnected holds no lock.
    """

    def __init__(self, base: Model, adapters: Sequence[Servable], taught: Taught | None = None):
        from peft import PeftModel

        self.device, dtype = device_and_dtype()
        self.tokenizer, model = load_base(base, self.device, dtype)
        config, ends = model.config, model.generation_config.eos_token_id
        self.length: int = getattr(config, "max_position_embeddings", None) or UNKNOWN_LENGTH
        taught = taught or Taught()
        self.wording = Wording(self.tokenizer, taught.encoding, taught.date, base.chat_template)
        self.ends = {*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id, *self.wording.ends}
        # Only the last position's logits are needed; most models can skip the others.
        spares = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._options: dict[str, int] = {"logits_to_keep": 1} if spares else {}
        self._own = {adapter.name: f"adapter{index}" for index, adapter in enumerate(adapters)}
        for adapter in adapters:  # internal names, because torch allows no dot in a module name
            own = self._own[adapter.name]
            if isinstance(model, PeftModel):
                model.load_adapter(str(adapter.folder), adapter_name=own)
            else:
                model = PeftModel.from_pretrained(model, str(adapter.folder), adapter_name=own)
        self.model: Any = model.eval()
        self.lock = threading.Lock()

    @property
    def has_chat_template(self) -> bool:
        return bool(self.wording.template or self.tokenizer.chat_template)

    def prompt(self, text: str) -> list[int]:
        """Return a plain text as token ids."""
        return self.wording.text(text)

    def chat(self, turns: Sequence[Mapping[str, str]]) -> list[int]:
        """Return a conversation as token ids in the training format. Raise `ValueError` if the template refuses it."""
        try:
            return self.wording.prompt(turns)
        except SpecError as error:
            raise ValueError(str(error)) from None

    def generate(self, name: str, prompt: Sequence[int], sampling: Sampling) -> Generation:
        """Return a generation by the adapter `name`, or by the base model for any other name."""
        return Generation(self, self._own.get(name), prompt, sampling)

    @torch.no_grad()
    def logits(self, own: str | None, ids: Sequence[int], past: object) -> tuple[torch.Tensor, object]:
        """Return the next token's logits ([vocabulary], float32) and the cache after adding `ids`."""
        tokens = torch.tensor([list(ids)], device=self.device)
        with self.lock:
            if own:
                self.model.set_adapter(own)
            with nullcontext() if own else self.model.disable_adapter():
                out = self.model(input_ids=tokens, past_key_values=past, use_cache=True, **self._options)
        return out.logits[0, -1].float(), out.past_key_values


COLD = 1e-6


class Generation:
    """One text, generated while it is iterated (once); `finish` and `tokens` are final after the last piece."""

    def __init__(self, engine: Engine, own: str | None, prompt: Sequence[int], sampling: Sampling):
        self.engine, self.own, self.prompt, self.sampling = engine, own, prompt, sampling
        self.tokens, self.finish = 0, "length"

    def __iter__(self) -> Iterator[str]:
        tokenizer = self.engine.tokenizer
        text = decoded(self._tokens(), lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)))
        if (yield from until_stop(text, self.sampling.stops)):
            self.finish = "stop"

    @property
    def usage(self) -> dict[str, int]:
        asked = len(self.prompt)
        return {"prompt_tokens": asked, "completion_tokens": self.tokens, "total_tokens": asked + self.tokens}

    def _tokens(self) -> Iterator[int]:
        random = torch.Generator()
        if self.sampling.seed is None:
            random.seed()
        else:
            random.manual_seed(self.sampling.seed)
        ids, past = self.prompt, None
        for _ in range(self.sampling.limit):
            logits, past = self.engine.logits(self.own, ids, past)
            token = chosen(logits, self.sampling, random)
            self.tokens += 1
            if token in self.engine.ends:
                self.finish = "stop"
                return
            yield token
            ids = [token]


def chosen(logits: torch.Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """Return the next token: the likeliest at temperature 0, else sampled from the smallest set of mass `top_p`.

    A temperature below `COLD` is 0: logits divided by it are not finite. However small `top_p`, the likeliest is kept.
    """
    if sampling.temperature < COLD:
        return int(logits.argmax())
    likely, order = torch.softmax(logits.cpu() / sampling.temperature, -1).sort(descending=True, stable=True)
    kept = likely.cumsum(-1) - likely < sampling.top_p
    kept[0] = True  # in 32 bits the smallest numbers are 0
    return int(order[torch.multinomial(likely * kept, 1, generator=random)])
