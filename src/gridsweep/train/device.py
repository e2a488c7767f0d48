"""What this worker computes on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def accelerator_index() -> int | None:
    """The index, as the driver counts, of the first GPU visible to this process; None without one.

    `CUDA_VISIBLE_DEVICES` says which, by index or UUID. CUDA is told to count as the driver does, by PCI bus. Answers
    before torch is imported, so that the loading of torch is measured too.
    """
    import pynvml

    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    try:
        pynvml.nvmlInit()
        if first.isdigit():
            return int(pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByIndex(int(first))))
        return int(pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(first)))
    except pynvml.NVMLError:  # no driver, or no such GPU
        return None


def device_and_dtype() -> tuple[torch.device, torch.dtype]:
    """A GPU with bfloat16 where it has it, else the CPU with float32, set to give the same bits every time."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda"), torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    # More threads than cores that are free make a small model ten times slower: they wait for each other, spinning.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms would load the compiler
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs time, and nothing here reads such memory
    return torch.device("cpu"), torch.float32


def described(device: torch.device) -> str:
    """For the facts of a result."""
    import torch

    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
