"""``my-part``: what a frozen network of a file makes of every patch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from safetensors.torch import load
from torch import Tensor

from maekit.contracts import PartContext, PartError, PartOptions, Target, WeightsError
from maekit.tokens import Mask, gather, patchify


class MyPart(Target):
    """Projects patches by the matrix ``projection [values of a patch, features]`` of a file.

    Only the file's name and checksum are kept with the weights, never what is in it.
    """

    class Options(PartOptions):
        """Options of ``my-part``."""

        pinned: ClassVar[Mapping[str, str]] = {"weights": "sha256"}

        weights: Path = Field(description="a safetensors file with a matrix `projection`")
        features: int = Field(16, ge=1, description="columns of the matrix")
        sha256: str | None = Field(None, description="of the file; unset: taken at the first run")

    def __init__(self, options: Options, context: PartContext) -> None:
        self.options = options
        self.patch = context.patch
        pt, ph, pw = context.patch
        self.values = pt * ph * pw * context.channels
        self.out_dim = options.features
        self.projection: Tensor | None = None

    def open(self) -> Mapping[str, object]:
        """Read the file before training, and pin it by its checksum."""
        file = self.options.weights
        if not file.is_file():
            raise PartError(f"there is no file {file}", hint="give its place as `weights`")
        data = file.read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if self.options.sha256 not in (None, found):
            what = f"{file} is another file: sha256 {found}, not {self.options.sha256}"
            raise WeightsError(what, hint="give the one that this run was started with")
        self.projection = load(data)["projection"].float()
        shape, wanted = tuple(self.projection.shape), (self.values, self.out_dim)
        if shape != wanted:
            raise WeightsError(f"projection is {shape}, patches need {wanted}", where=str(file))
        return {"sha256": found}

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        """Turn pixels ``[B, C, T, H, W]`` in [0, 1] into the truth ``[B, Q, features]``."""
        if self.projection is None:
            raise PartError("the frozen network is not open: call open() first")
        patches = gather(patchify(views[0].float(), self.patch), mask.queries)
        self.projection = self.projection.to(patches.device)
        with torch.autocast(patches.device.type, enabled=False):  # the truth stays float32
            return patches @ self.projection

    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare ``[B, Q, features]`` with the truth: float32 ``[B, Q]``."""
        return (pred.float() - target).square().mean(dim=-1)
