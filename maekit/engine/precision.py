"""On which device, and in which number format, a run computes."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

from maekit.errors import RecipeError
from maekit.ranks import place_of


@dataclass(frozen=True)
class Precision:
    """Autocast to ``dtype`` (none for float32), with loss scaling for float16."""

    name: Literal["bf16", "fp16", "fp32"]
    device: str

    @classmethod
    def of(
        cls,
        requested: Literal["auto", "bf16", "fp16", "fp32"],
        device: torch.device,
        *,
        where: str = "precision",
    ) -> Precision:
        """Choose by name; ``auto`` is bf16 where it is native, fp16 on older GPUs, else fp32.

        Raises:
            RecipeError: fp16 on a CPU, where float16 training is not supported.
        """
        if requested == "fp16" and device.type == "cpu":
            msg = "fp16 needs a GPU"
            raise RecipeError(msg, where=where, hint="use bf16, fp32 or auto")
        if requested != "auto":
            return cls(requested, device.type)
        if device.type != "cuda":
            return cls("fp32", device.type)
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return cls("bf16" if native else "fp16", device.type)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of the forward pass."""
        if self.name == "fp32":
            return nullcontext()
        dtype = torch.bfloat16 if self.name == "bf16" else torch.float16
        return torch.autocast(self.device, dtype)

    def scaler(self) -> torch.amp.GradScaler | None:
        """Return the loss scaler, where float16 needs one."""
        return torch.amp.GradScaler(self.device) if self.name == "fp16" else None


def pick_device(name: str | None) -> torch.device:
    """Return the requested device, or the best there is.

    Raises:
        RecipeError: the device is unknown, or not there.
    """
    local = place_of(os.environ).local
    if local and name in (None, "cuda") and torch.cuda.is_available():
        # A launcher may show each rank all devices of the machine, or only its own.
        return torch.device("cuda", local % torch.cuda.device_count())
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    hint = "cpu, cuda, cuda:N or mps"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        msg = f"device '{name}' cannot be used: {reason}"
        raise RecipeError(msg, where="--device", hint=hint) from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise RecipeError(f"maekit does not train on '{name}'", where="--device", hint=hint)
    return device
