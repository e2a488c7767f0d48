"""RMSNorm and SwiGLU that keep less for the backward pass; used only where an example gives the same results."""

from __future__ import annotations

from typing import Any  # transformers modules, of any class with these attributes

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gridsweep.train.lean.autograd import Context, applied


class RmsNorm(torch.autograd.Function):
    """x / rms(x) * weight; keeps x and one number per row."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        inverse: Tensor = torch.linalg.vecdot(wide, wide).div_(x.shape[-1]).add_(eps).rsqrt_().unsqueeze_(-1)
        ctx.save_for_backward(x, weight, inverse)
        return (wide * inverse).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None, None]:
        x, weight, inverse = ctx.saved_tensors
        wide = x.to(inverse.dtype)
        inner = (grad * weight).to(inverse.dtype)
        share = torch.linalg.vecdot(inner, wide).unsqueeze_(-1).mul_(inverse).mul_(inverse).div_(-x.shape[-1])
        return inner.addcmul_(wide, share).mul_(inverse).to(x.dtype), None, None


class SwiGlu(torch.autograd.Function):
    """silu(gate) * up; keeps gate and up."""

    @staticmethod
    def forward(ctx: Context, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad * up, gate), F.silu(gate).mul_(grad)


class LeanNorm(nn.Module):
    weight: Tensor
    eps: float

    def __init__(self, norm: Any):
        super().__init__()
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:
        return applied(RmsNorm, x, self.weight, self.eps)


class LeanMlp(nn.Module):
    gate_proj: nn.Linear
    up_proj: nn.Linear
    down_proj: nn.Linear

    def __init__(self, mlp: Any):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(applied(SwiGlu, self.gate_proj(x), self.up_proj(x)))
        return out


def lean_instead(module: nn.Module) -> nn.Module | None:
    """Return a lean module that gives the same results as `module` on an example, or None."""
    name = type(module).__name__
    lean: LeanNorm | LeanMlp
    if name.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
        lean = LeanNorm(module)
        weight, width = lean.weight, lean.weight.shape[0]
    elif name.endswith("MLP") and _is_swiglu(module):
        lean = LeanMlp(module)
        weight, width = lean.gate_proj.weight, lean.gate_proj.in_features
    else:
        return None
    example = torch.linspace(-3, 3, 4 * width, dtype=weight.dtype, device=weight.device).view(1, 4, width)
    with torch.no_grad():
        there, here = module(example).float(), lean(example).float()
    limit = 1e-4 if weight.dtype in (torch.float32, torch.float64) else 2e-2
    return lean if (there - here).abs().max() <= limit * there.abs().max() else None


def _is_swiglu(module: nn.Module) -> bool:
    """Return whether a module consists of three linear layers without biases."""
    linears = {n: m for n, m in module.named_children() if isinstance(m, nn.Linear) and m.bias is None}
    owners = {n.partition(".")[0] for n, _ in module.named_parameters()}
    return linears.keys() == owners == {f"{part}_proj" for part in ("gate", "up", "down")}
