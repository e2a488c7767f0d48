"""python -m gridsweep.train.merging: an adapter merged into its base, asked for as JSON on stdin, told as JSON.

The result is a plain Hugging Face folder, checked against base and adapter before it is kept. The base keeps its number
type. A merged weight is rounded to that type once, so that in bfloat16 the merged model is not exactly base and
adapter; how far apart the logits are is measured and told.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any  # modules and tokenizers of any architecture

from gridsweep.errors import AdapterError, GridsweepError
from gridsweep.records import codec
from gridsweep.sweep.experiments import Dataset, Model

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from gridsweep.train.pretrained import CausalLM

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
SHARD = "5GB"
TEXT = "def add(a, b):\n    return a + b\n\nThe quick brown fox jumps over the lazy dog. 0123456789"
TOLERANCE = {"float32": 1e-4, "float16": 0.01, "bfloat16": 0.05}
"""The largest mean difference of logits that rounding explains, as a share of their standard deviation, by type."""
LOST = 0.5  # the largest part of the adapter's own effect that rounding may take
PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class Merged:
    """What was merged: the number type, how many modules, and how far the logits are from base and adapter's.

    `apart` is the mean difference as a share of the logits' standard deviation; `effect` is the adapter's own.
    """

    dtype: str
    modules: int
    apart: float
    effect: float

    @property
    def told(self) -> str:
        return (
            f"{self.modules} modules merged in {self.dtype}; logits differ from base and adapter by {self.apart:.2g} "
            f"of their standard deviation, the adapter itself moves them by {self.effect:.2g}"
        )


def merge(model: Model, adapter: Path, folder: Path, *, shard: str = SHARD) -> Merged:
    """Write base and adapter as one model into `folder`, which must not exist, and return what was done.

    Raise `SpecError` if the base cannot be loaded (quantized ones among others), `AdapterError` if the adapter does not
    fit it, if a weight is shared with another part of the model, or if the merged model computes something else.
    """
    import torch
    from transformers import AutoConfig
    from transformers.utils.logging import disable_progress_bar

    from gridsweep.train.architecture import auto_class
    from gridsweep.train.checkpoint import base_of, config_of
    from gridsweep.train.model import resolve
    from gridsweep.train.tokenizer_files import tokenizer_of

    disable_progress_bar()
    where = resolve(model)
    config = config_of(model, where)
    if getattr(config, "quantization_config", None) is not None:
        raise AdapterError(f"the weights of {model.id} are quantized; an adapter is merged into full weights only")
    tokenizer: Any = tokenizer_of(model, where, config)
    if model.chat_template is not None:
        tokenizer.chat_template = model.chat_template
    dtype = getattr(config, "dtype", None) or torch.float32
    base = base_of(model, where, config, dtype).eval()
    deltas = dict(_deltas(base, adapter))
    ids = torch.tensor([tokenizer(TEXT)["input_ids"]])
    plain = _logits(base, ids)
    with _beside(deltas):
        adapted = _logits(base, ids)
    with torch.no_grad():
        for module, (scale, a, b, turned) in deltas.items():
            delta = scale * (b.float() @ a.float())
            weight: Any = module.weight
            weight.copy_((weight.float() + (delta.T if turned else delta)).to(weight.dtype))
    saver: Any = base
    saver.save_pretrained(folder, max_shard_size=shard)
    tokenizer.save_pretrained(folder)
    again = AutoConfig.from_pretrained(folder)
    found = auto_class(again).from_pretrained(folder, dtype=dtype).eval()
    spread = adapted.std().item() or 1.0
    apart = (_logits(found, ids) - adapted).abs().mean().item() / spread
    made = Merged(str(dtype).removeprefix("torch."), len(deltas), apart, (adapted - plain).abs().mean().item() / spread)
    allowed = min(TOLERANCE.get(made.dtype, TOLERANCE["bfloat16"]), LOST * made.effect or math.inf)
    if found.dtype != dtype or not math.isfinite(apart) or apart > allowed:
        raise AdapterError(
            f"the merged model does not compute what base and adapter do ({made.told}; at most {allowed:.2g} "
            "may differ); export the adapter without --merge"
        )
    return made


_Delta = tuple[float, "Tensor", "Tensor", bool]


def _deltas(base: CausalLM, adapter: Path) -> Iterator[tuple[nn.Module, _Delta]]:
    """Yield each adapted module with (scale, A, B, whether its weight is [in, out])."""
    from safetensors.torch import load_file

    config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    weights = load_file(adapter / WEIGHTS)
    root = math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]
    ends: list[Any] = [base.get_input_embeddings(), base.get_output_embeddings()]
    shared = {end.weight.data_ptr() for end in ends if end is not None}
    names = sorted(name.removesuffix(".lora_A.weight") for name in weights if name.endswith(".lora_A.weight"))
    if not names or len(weights) != 2 * len(names):
        raise AdapterError(f"{adapter / WEIGHTS} holds other weights than pairs of A and B")
    for name in names:
        a, b = weights[f"{name}.lora_A.weight"], weights[f"{name}.lora_B.weight"]
        turned = bool(config.get("fan_in_fan_out"))
        try:
            module = base.get_submodule(name.removeprefix(PREFIX))
            weight: Any = module.weight
        except AttributeError:
            raise AdapterError(f"the base has no module {name.removeprefix(PREFIX)}, which the adapter has") from None
        if tuple(weight.shape[:: -1 if turned else 1]) != (b.shape[0], a.shape[1]):
            raise AdapterError(f"the adapter does not fit {name.removeprefix(PREFIX)} of the base")
        if weight.data_ptr() in shared:
            raise AdapterError(f"{name.removeprefix(PREFIX)} shares its weight with the embeddings or the head")
        yield module, (config["lora_alpha"] / root, a, b, turned)


@contextmanager
def _beside(deltas: dict[nn.Module, _Delta]) -> Iterator[None]:
    """Add the adapters to the modules' outputs, as PEFT does, while the context lasts."""
    hooks = []
    for module, (scale, a, b, _) in deltas.items():

        def hook(_: nn.Module, inputs: Any, out: Tensor, s: float = scale, a: Tensor = a, b: Tensor = b) -> Tensor:
            added: Tensor = (s * (inputs[0].float() @ a.float().T) @ b.float().T).to(out.dtype)
            return out + added

        hooks.append(module.register_forward_hook(hook))
    try:
        yield
    finally:
        for made in hooks:
            made.remove()


def _logits(model: Any, ids: torch.Tensor) -> Tensor:
    import torch

    with torch.no_grad():
        found: Tensor = model(input_ids=ids, use_cache=False).logits.float()
    return found


def main() -> int:
    """Read (model, adapter, folder) from stdin, merge, print a `Merged`. Return 2 with a line on stderr if refused."""
    model, adapter, folder = codec.loads(tuple[Model, str, str], sys.stdin.read())
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from gridsweep.train.model import offline_if_local

    offline_if_local(model, Dataset("stdlib"))  # before any Hugging Face library is imported
    try:
        made = merge(model, Path(adapter), Path(folder))
    except ModuleNotFoundError as error:
        print(f"the Python package {error.name} is missing; pip install 'gridsweep[train]'", file=sys.stderr)
        return 2
    except GridsweepError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    print(json.dumps({**asdict(made), "told": made.told}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
