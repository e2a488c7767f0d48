"""What torch leaves untyped about functions with a backward pass of their own."""

from __future__ import annotations

from typing import Any, Protocol  # a context holds whatever its function puts there

import torch
from torch import Tensor


class Context(Protocol):
    """What a function's `forward` leaves for its `backward`: tensors, and attributes of any name."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...
    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: Any) -> None: ...


def applied(function: type[torch.autograd.Function], *inputs: object) -> Tensor:
    """Return `function.apply(*inputs)`, for a function with one result."""
    result: Tensor = function.apply(*inputs)
    return result
