"""Where a network runs and at which precision. Torch is imported on use only."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

from cache.errors import InputError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

PRECISIONS = ("auto", "float32", "bfloat16")


def choose_devices(text: str) -> list[str]:
    """The devices that a name stands for, one worker each: "auto" and "cuda" are all GPUs, "auto" the CPU without any.

    text : auto, cpu, cuda, cuda:1, or several such as cuda:0,cuda:2
    Raises InputError.
    """
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "auto" and not found:
        return ["cpu"]
    if text in ("auto", "cuda") and found:
        return ["cuda"] if found == 1 else [f"cuda:{index}" for index in range(found)]
    devices = [name.strip() for name in text.split(",")]
    for name in devices:
        wanted = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
        if not wanted:
            raise InputError(f"there is no device {name!r}: use auto, cpu, cuda or cuda:0,cuda:1")
        if name != "cpu" and int(wanted[1] or 0) >= found:
            raise InputError(f"DEVICE={name} was asked for and torch finds {found} CUDA devices here: use DEVICE=cpu")
    return devices


def choose_precision(name: str, device: str) -> str:
    """What "auto" stands for: bfloat16 on a GPU that has it, float32 elsewhere."""
    import torch

    if name not in PRECISIONS:
        raise InputError(f"precision={name!r} must be one of {', '.join(PRECISIONS)}")
    if name != "auto":
        return name
    return "bfloat16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"


def autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    """A context in which networks on the device run at a precision that `choose_precision` gave."""
    import torch

    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)
