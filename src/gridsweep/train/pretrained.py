"""The parts of transformers' models and tokenizers that this package uses, as protocols.

For the type checker only: no module imports this one at run time. transformers builds these objects from a model's
files, and its own types differ between releases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, Self, TypedDict, overload  # a turn holds what templates read

import torch
from torch import Tensor, nn


class Config(Protocol):
    """The configuration of a Qwen2- or Llama-shaped model; other models may lack some of these sizes."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    use_cache: bool
    _attn_implementation: str

    def get_text_config(self, decoder: bool = False) -> Config: ...


class GenerationConfig(Protocol):
    """How a model generates text: the tokens that end a text."""

    eos_token_id: int | list[int] | None


class Hidden(Protocol):
    """The output of the decoder without its head: [rows, tokens, hidden size]."""

    last_hidden_state: Tensor


class Predicted(Protocol):
    """The output of the whole model: logits [rows, tokens, vocabulary], and the cache of keys and values."""

    logits: Tensor
    past_key_values: object


class Decoder(Protocol):
    """The layers below the head."""

    config: Config

    def set_attn_implementation(self, name: str) -> None: ...
    def modules(self) -> Iterator[nn.Module]: ...

    def __call__(self, *, input_ids: Tensor, position_ids: Tensor, use_cache: bool) -> Hidden: ...


class CausalLM(Protocol):
    """A decoder with a language head, a `torch.nn.Module`."""

    config: Config
    generation_config: GenerationConfig

    @property
    def base_model(self) -> Decoder: ...
    @property
    def model(self) -> Decoder: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def __call__(self, *, input_ids: Tensor, use_cache: bool, attention_mask: Tensor | None = None) -> Predicted: ...
    def forward(self, *, input_ids: Tensor, use_cache: bool) -> Predicted: ...
    def get_output_embeddings(self) -> nn.Linear: ...
    def get_input_embeddings(self) -> nn.Module: ...
    def get_decoder(self) -> Decoder: ...
    def set_attn_implementation(self, name: str) -> None: ...
    def named_modules(self) -> Iterator[tuple[str, nn.Module]]: ...
    def get_submodule(self, target: str) -> nn.Module: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def requires_grad_(self, requires_grad: bool) -> Self: ...
    def to(self, target: torch.device | torch.dtype) -> Self: ...
    def eval(self) -> Self: ...


class Offsets(TypedDict):
    """Texts as token ids, with the characters of each token."""

    input_ids: list[list[int]]
    offset_mapping: list[list[tuple[int, int]]]


class Marked(TypedDict):
    """A conversation as token ids; `assistant_masks` holds 1 where the template marks what the assistant writes."""

    input_ids: list[int]
    assistant_masks: list[int]
    offset_mapping: list[tuple[int, int]]


class Tokenizer(Protocol):
    """Text to token ids and back."""

    eos_token: str | None
    eos_token_id: int | None
    chat_template: str | dict[str, str] | None
    is_fast: bool
    special_tokens_map: Mapping[str, object]

    def get_vocab(self) -> dict[str, int]: ...
    @overload
    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Mapping[Literal["input_ids"], list[int]]: ...
    @overload
    def __call__(
        self, text: list[str], *, add_special_tokens: bool = True
    ) -> Mapping[Literal["input_ids"], list[list[int]]]: ...
    @overload
    def __call__(
        self, text: list[str], *, add_special_tokens: bool, return_offsets_mapping: Literal[True]
    ) -> Offsets: ...
    def get_added_vocab(self) -> Mapping[str, int]: ...
    def get_chat_template(self) -> str: ...
    @overload
    def apply_chat_template(
        self,
        conversation: list[dict[str, Any]],
        *,
        tokenize: Literal[False],
        add_generation_prompt: bool,
        **options: Any,
    ) -> str: ...
    @overload
    def apply_chat_template(
        self,
        conversation: list[dict[str, Any]],
        *,
        return_dict: Literal[True],
        return_assistant_tokens_mask: Literal[True],
        tokenizer_kwargs: Mapping[str, bool],
        **options: Any,
    ) -> Marked: ...
    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str: ...
