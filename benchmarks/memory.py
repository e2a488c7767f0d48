"""What memory LoRA training takes by the memory model, lean beside plain PEFT: the tables of docs/profiles.md.

    python benchmarks/memory.py [--shape 7b] [--dtype bfloat16] [--devices 24 80 141]
    python benchmarks/memory.py --process [--shapes tiny smollm2] [--members 1 4 8]

With `--process`, workers train two steps on the CPU, over random weights of a shape, one after another: what each
predicted, what it counted, and the peak of its resident memory as the kernel tells it when the process ends.

Without it nothing is trained and no weight is made: the model lies on torch's device "meta". Lean are the figures of
`gridsweep.train.footprint`. PEFT's are counted by torch's hooks for what a forward pass of 2 samples of 384 tokens
keeps for its backward pass, with attention that keeps what a flash kernel does (its inputs, its output and a float32 a
row and head), dropout with a mask of one byte a number as CUDA has it, and logits left out; PEFT's default are
adapters in float32; the row above has them in the base's type (about what autocast does). Sizes are in GB of 10^9
bytes; of each device a tenth stays free. A member passes with one step's tokens, 8 samples of 300 (a HelpSteer2-like
mix cut at 384), or with 2 samples of 384, or with 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

sys.path.insert(0, str(Path(__file__).parent))
from shapes import SHAPES, frozen

from gridsweep.records.attempts import Assignment, AttemptFolder, Part
from gridsweep.sweep.experiments import Dataset, LoraParams, Model, Recipe
from gridsweep.sweep.stints import Device
from gridsweep.train.footprint import STATE, Footprint, of_model
from gridsweep.train.model import TINY_QWEN2

RANKS, STEP, TWO, ONE = (16, 32), 2400, 768, 384
TARGETS = Recipe().target_modules
META = torch.device("meta")


class InputsAndOutput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:3], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor):
        raise NotImplementedError


def inputs_and_output(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **_: Any
) -> tuple[Tensor, None]:
    return InputsAndOutput.apply(query, key, value).transpose(1, 2), None


AttentionInterface.register("inputs_and_output", inputs_and_output)


class Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(torch.empty_like(x, dtype=torch.bool))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor):
        raise NotImplementedError


def peft_token(shape: str, dtype: torch.dtype, r: int, same_type: bool) -> float:
    """Bytes a token keeps with plain PEFT."""
    from peft import LoraConfig, get_peft_model

    warnings.simplefilter("ignore")
    base = frozen(shape, META, dtype)
    base.set_attn_implementation("inputs_and_output")
    options = LoraConfig(r=r, lora_alpha=64, lora_dropout=0.1, target_modules=list(TARGETS), task_type="CAUSAL_LM")
    lora = get_peft_model(base, options, autocast_adapter_dtype=not same_type).to(META).train()
    if same_type:
        lora.to(dtype)
    for module in lora.modules():
        if isinstance(module, nn.Dropout):
            module.forward = Dropped.apply  # type: ignore[method-assign]
    known = {parameter.untyped_storage()._cdata for parameter in lora.parameters()}
    sizes: dict[int, tuple[int, Tensor]] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            sizes[storage._cdata] = (storage.nbytes(), tensor)  # kept, so that no other gets its number
        return tensor

    ids = torch.zeros(2, ONE, dtype=torch.long, device=META)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        lora.base_model.model.model(input_ids=ids, position_ids=torch.arange(ONE, device=META)[None])
    return sum(size for size, _ in sizes.values()) / ids.numel()


def table(shape: str, dtype: torch.dtype, devices: list[float]) -> None:
    """Print what one shape takes, and what fits each device."""
    lean = of_model(frozen(shape, META, dtype), TARGETS, counted=2 / 3)
    kept = Footprint(lean.base, lean.element, lean.shapes, lean.config, lean.counted, remembered=True)
    logits = f"{lean.logits(1) / 1e6:.0f} MB of logits a pass of one member"
    print(f"{shape}: base {lean.base / 1e9:.2f} GB in {dtype}, {logits}\n")
    print(f"{'':24}" + "".join(f"{f'r={r}':>10}" for r in RANKS))
    rows = {"parameters, million": [lean.parameters(r) / 1e6 for r in RANKS]}
    for name, times in STATE.items():
        rows[f"{name}, GB"] = [4 * times * lean.parameters(r) / 1e9 for r in RANKS]
    rows |= {
        "an adapter in all, GB": [lean.adapter(r) / 1e9 for r in RANKS],
        "MB a token, lean": [lean.token(r, 8) / 1e6 for r in RANKS],
        "  masks kept": [kept.token(r, 8) / 1e6 for r in RANKS],
        "MB a token, PEFT": [peft_token(shape, dtype, r, True) / 1e6 for r in RANKS],
        "  adapters in float32": [peft_token(shape, dtype, r, False) / 1e6 for r in RANKS],
    }
    for name, values in rows.items():
        print(f"{name:24}" + "".join(f"{value:10.2f}" for value in values))
    print(f"\n{'adapters of r=32 that':24}" + "".join(f"{f'{gb:g} GB':>10}" for gb in devices))
    for name, tokens in (("a step", STEP), ("2 samples", TWO), ("1 sample", ONE)):
        fit = [lean.at_once(gb * 1e9, 32, tokens) for gb in devices]
        print(f"{f'pass at once, {name}':24}" + "".join(f"{n:10}" for n in fit))
    fit = [lean.resident(gb * 1e9, 32, ONE) for gb in devices]
    print(f"{'live, one passing':24}" + "".join(f"{n:10}" for n in fit))
    published = [16] * 8 + [32] * 13
    held = sum(map(lean.adapter, published))
    print(f"\nthe published 21: {held / 1e9:.1f} GB; beside them in a pass, tokens of each of so many members of r=32")
    for members in (1, 2, 4, 8, 21):
        fit = [lean.tokens(gb * 1e9, published, members, 32) for gb in devices]
        print(f"{members:<24}" + "".join(f"{n:10}" for n in fit))


def trained(folder: Path, shape: str, model: str, members: int, dropout: float) -> tuple[dict[str, str], float]:
    """Return a worker's facts, and the peak of its resident memory in MiB."""
    recipe = Recipe(max_length=512, batch_size=4, accumulation=2)
    parts = [Part(f"e{n}", LoraParams(RANKS[n % 2], 64, 1e-4, dropout), 7, 0, 2) for n in range(members)]
    attempt = AttemptFolder(folder / "store" / "stints" / f"{shape}-{members}-{dropout:g}" / "1")
    data = Dataset("stdlib", train_samples=64, validation_samples=32)
    attempt.prepare(Assignment("one/1", Model(model), data, recipe, 2, Device("cpu"), tuple(parts)))
    lock = attempt.lock()
    assert lock is not None, "the folder is new"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "gridsweep.train", str(attempt.path)]
    with (folder / "log.txt").open("a") as log:
        child = subprocess.Popen(command, env=environment, stdout=log, stderr=log, pass_fds=[lock])
        _, status, used = os.wait4(child.pid, 0)
    os.close(lock)
    result = attempt.result()
    if status or result is None or result.error:
        sys.exit((folder / "log.txt").read_text()[-2000:])
    return result.facts, used.ru_maxrss / 1024


def processes(shapes: list[str], members_of: list[int]) -> None:
    """Print what workers predicted, counted and took."""
    print(
        f"{'shape':10}{'members':>8}{'dropout':>8}{'predicted':>11}{'told':>8}{'peak RSS':>10}{'predicted / RSS':>17}"
    )
    with tempfile.TemporaryDirectory() as at:
        for shape in shapes:
            model = str(TINY_QWEN2) if shape == "tiny" else str(Path(at) / shape)
            if shape != "tiny":
                frozen(shape, torch.device("cpu"), torch.float32).save_pretrained(model)
                for file in TINY_QWEN2.glob("tokenizer*"):
                    shutil.copy(file, model)
            for members, dropout in ((1, 0.0), *((n, 0.1) for n in members_of)):
                facts, peak = trained(Path(at), shape, model, members, dropout)
                predicted, told = (float(facts[f"memory_{name}_mb"]) for name in ("predicted", "peak"))
                print(
                    f"{shape:10}{members:8}{dropout:8}{predicted:11,.0f}{told:8,.0f}{peak:10,.0f}"
                    f"{predicted / peak:17.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--devices", type=float, nargs="+", default=[24, 80, 141], metavar="GB")
    parser.add_argument("--process", action="store_true", help="train on this CPU, and compare with the peak RSS")
    parser.add_argument("--shapes", choices=SHAPES, nargs="+", default=["tiny", "smollm2"])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 4, 8], help="sizes of the groups with dropout")
    told = parser.parse_args()
    if told.process:
        sys.exit(processes(told.shapes, told.members))
    table(told.shape, getattr(torch, told.dtype), told.devices)
