"""Types for autograd functions with their own backward pass, which torch leaves untyped."""

from __future__ import annotations

from typing import Any, Protocol  # a context holds any value that its function stores

import torch
from torch import Tensor


class Context(Protocol):
    """The values a function's `forward` stores for its `backward`: tensors, and attributes of any name."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...
    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: Any) -> None: ...


def applied(function: type[torch.autograd.Function], *inputs: object) -> Tensor:
    """Return `function.apply(*inputs)`, for a function with one result."""
    result: Tensor = function.apply(*inputs)
    return result
