"""The device that this worker computes on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any  # pynvml has no types, and tests may pass a double

import pynvml

from gridsweep.energy.nvml import nvml_index

if TYPE_CHECKING:
    import torch


def accelerator_index(nvml: Any = pynvml) -> int | str | None:
    """Return NVML's index or UUID of the GPU this process will use; None without a GPU. Needs no torch import."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # CUDA must number GPUs as NVML does
    try:
        nvml.nvmlInit()
        present = nvml.nvmlDeviceGetCount() > 0
        nvml.nvmlShutdown()
    except nvml.NVMLError:
        return None
    return nvml_index(os.environ.get("CUDA_VISIBLE_DEVICES")) if present else None


def device_and_dtype() -> tuple[torch.device, torch.dtype]:
    """Return a GPU, with bfloat16 if supported; else the CPU with float32, reproducible bit for bit."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda"), torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    # More threads than free cores make a small model ten times slower: the threads spin while they wait for each other.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms would load the compiler
    # Filling costs time, and no code here reads uninitialized memory. torch adds this property to the module on import.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return torch.device("cpu"), torch.float32


def memory_at_hand(device: torch.device, stated_gb: float | None, beside: Sequence[float | None] = ()) -> float:
    """Return the bytes available for the base and everything beside it: free memory, or `stated_gb` if that is less.

    On a CPU, this worker's part of the memory counts, which is the same at every start: `beside` holds the stated
    gigabytes of the devices whose workers share the machine with this one, None where none are stated.
    """
    import torch

    if device.type == "cuda":
        there = float(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
        return there if stated_gb is None else min(there, stated_gb * 1e9)
    from gridsweep.train import machine_memory

    stated, *others = (None if gb is None else gb * 1e9 for gb in (stated_gb, *beside))
    return machine_memory.share(machine_memory.there(), stated, others)


def taken_beside(device: torch.device, base: int, before: int) -> float:
    """Return the bytes that this process takes beside a base of `base` bytes: Python, libraries, data; 0 on a GPU.

    `before` is the resident memory before the base was loaded. Pages of weights that are mapped and not yet read do
    not count as resident; the process takes no less than it took before the base.
    """
    if device.type == "cuda":
        return 0.0
    from gridsweep.train import machine_memory

    return float(max(before, machine_memory.resident() - base))


def described(device: torch.device) -> str:
    """Return the device's description for the facts of a result."""
    import torch

    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def device_name(device: torch.device) -> str:
    """Return the name of the GPU or processor."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine() or "cpu"
