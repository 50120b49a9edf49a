"""Target ``teacher``: what a frozen network says of each token (MVP, EVA, MILAN and their like).

The network is any of timm's, with weights in a file, or whatever maekit loads: a run (pre-trained
or fine-tuned), a weights file, ``timm:NAME``. Its tensors are pinned by their checksum.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import maekit
from maekit.contracts import PartContext, PartError, PartOptions, Target, View, WeightsError
from maekit.tokens import Mask, gather

# Of a network, and pictures [B, C, H, W] in [0, 1]: tokens [B, N, D]. A copy of the target has a
# copy of the network, which is why it is an argument.
Features = Callable[[Any, Tensor], Tensor]
_TRY = "set width and patch to the teacher's"


class Teacher(Target):
    """Predicts a frozen network's features at the hidden tokens.

    The teacher sees the same crop at ``grid * patch`` pixels, nothing hidden, so that one of its
    tokens stands where one of the model's does. Of a clip, it sees one frame for each time slot.
    """

    class Options(PartOptions):
        pinned: ClassVar[Mapping[str, str]] = {"weights": "sha256"}

        weights: str = Field(
            min_length=1,
            description="a run of maekit, or any weights that maekit loads; with `model`, a state "
            "dict of that (.safetensors, .pth)",
        )
        width: int = Field(ge=1, description="values of one of the teacher's tokens")
        patch: int | None = Field(
            None, ge=1, description="pixels a side of its tokens; unset: as many as the model's"
        )
        model: str | None = Field(None, description="a name in timm; unset: maekit loads `weights`")
        norm: bool = Field(
            True, description="give each token's features a mean of 0 and a deviation of 1"
        )
        loss: Literal["smooth-l1", "mse", "cosine"] = Field(
            "smooth-l1", description="of a token; cosine: 1 - the cosine of the angle"
        )
        sha256: str | None = Field(
            None,
            pattern="^[0-9a-f]{64}$",
            description="of the teacher's tensors, which are refused if they have another; runs "
            "keep it",
        )

    def __init__(self, options: Options, context: PartContext) -> None:
        self.options = options
        grid = context.grid
        self.grid, self.channels = grid, context.channels
        height, width = context.patch[1:]
        if options.patch is not None:
            height = width = options.patch
        self.size = (grid.h * height, grid.w * width)
        self.views = (View("teacher", self.size, "bicubic", grid.t),)
        self.out_dim = options.width
        self._network: nn.Module | None = None
        self._features: Features | None = None

    def open(self) -> dict[str, str]:
        """Read the network; returns the option that pins it down.

        Raises:
            WeightsError: it is another one than ``sha256`` says, or cannot be read.
            PartError: it has other tokens than the options say.
        """
        options = self.options
        open_it = _of_maekit if options.model is None else _of_timm
        network, features = open_it(options, self.size, self.channels)
        network.eval().requires_grad_(requires_grad=False)
        digest = _digest(network)
        if options.sha256 not in (None, digest):
            msg = f"the teacher's tensors have sha256 {digest}, and {options.sha256} is expected"
            hint = "give the teacher that these weights were trained against"
            raise WeightsError(msg, where=options.weights, hint=hint)
        self._network, self._features = network, features
        with torch.no_grad():
            found = features(network, torch.zeros(1, self.channels, *self.size))
        wanted = (1, self.grid.h * self.grid.w, options.width)
        if tuple(found.shape) != wanted:
            msg = f"the teacher gives {found.shape[1]} tokens of {found.shape[2]} values for "
            msg += (
                f"{self.size[0]}x{self.size[1]} pixels, and {wanted[1]} of {wanted[2]} are needed"
            )
            raise PartError(msg, hint=_TRY)
        return {"sha256": digest}

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        """Turn the teacher's view ``[B, C, t, H, W]`` into features ``[B, Q, width]``."""
        if self._network is None or self._features is None:
            self.open()
        network, features = self._network, self._features
        if network is None or features is None:  # open sets both
            raise AssertionError
        seen = views[1]
        if next(network.parameters()).device != seen.device:
            network.to(seen.device)
        b, c, t, h, w = seen.shape
        with torch.no_grad():
            found = features(network, seen.transpose(1, 2).reshape(b * t, c, h, w))
        tokens = gather(found.float().reshape(b, -1, found.shape[-1]), mask.queries)
        return F.layer_norm(tokens, tokens.shape[-1:]) if self.options.norm else tokens

    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare ``[B, Q, width]`` with the truth: float32 ``[B, Q]``."""
        pred = pred.float()
        if self.options.loss == "cosine":
            return 1 - F.cosine_similarity(pred, target, dim=-1)
        each = F.mse_loss if self.options.loss == "mse" else F.smooth_l1_loss
        return each(pred, target, reduction="none").mean(dim=-1)


def _of_maekit(
    options: Teacher.Options, size: tuple[int, int], channels: int
) -> tuple[nn.Module, Features]:
    """Return an encoder that maekit loads, at another size where need be."""
    model = maekit.load(os.path.expanduser(options.weights), clip=(1, *size))  # noqa: PTH111
    if len(model.statistics.mean) != channels:
        msg = f"the teacher takes {len(model.statistics.mean)} channels, not {channels}"
        raise PartError(msg, hint="take a teacher of the same channels")
    prefix = model.backbone.prefix_tokens

    def features(network: Any, pictures: Tensor) -> Tensor:  # noqa: ANN401
        tokens: Tensor = network.encode(network.normalize(pictures[:, :, None]))
        return tokens[:, prefix:]

    # What it was trained to predict is no part of what it is as a teacher.
    model.decoder = model.target = None
    return model, features


def _of_timm(
    options: Teacher.Options, size: tuple[int, int], channels: int
) -> tuple[nn.Module, Features]:
    """Return a network of timm, with weights out of a file."""
    import timm
    from timm.models import load_state_dict

    name = str(options.model)
    if not timm.is_model(name):
        msg = f"timm {timm.__version__} has no model '{name}'"
        raise PartError(msg, hint="`timm.list_models()` lists them")
    known = timm.get_pretrained_cfg(name)
    fixed: dict[str, Any] = (
        {"img_size": size} if known is not None and known.fixed_input_size else {}
    )
    try:
        network = timm.create_model(
            name, pretrained=False, num_classes=0, in_chans=channels, **fixed
        )
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        msg = f"timm cannot build {name} for {size[0]}x{size[1]} pixels: {error}"
        raise PartError(msg, hint="set patch, so that the view has a size that it takes") from error
    path = os.path.expanduser(options.weights)  # noqa: PTH111
    if not os.path.isfile(path):  # noqa: PTH113
        raise PartError(f"no such file: {path}", hint="give a state dict of the model")
    found = load_state_dict(path)
    wanted = network.state_dict()
    wrong = [
        key
        for key, tensor in wanted.items()
        if key not in found or found[key].shape != tensor.shape
    ]
    if wrong:
        msg = f"this is no {name} for {size[0]}x{size[1]} pixels: {len(wrong)} tensors are missing "
        msg += f"or of another shape, as {wrong[0]}"
        raise WeightsError(msg, where=path, hint="check model and patch")
    network.load_state_dict({key: found[key] for key in wanted})  # its head is left out
    config: Any = network.pretrained_cfg
    mean, std = (
        torch.tensor(config[key] if len(config[key]) == channels else [default] * channels)
        for key, default in (("mean", 0.5), ("std", 0.5))
    )
    prefix = int(getattr(network, "num_prefix_tokens", 0))
    last = getattr(network, "output_fmt", "NCHW") == "NHWC"

    def features(network: Any, pictures: Tensor) -> Tensor:  # noqa: ANN401
        shape = (1, -1, 1, 1)
        normal = (pictures - mean.to(pictures).view(shape)) / std.to(pictures).view(shape)
        x: Tensor = network.forward_features(normal)
        if x.ndim == 4:
            x = x.flatten(1, 2) if last else x.flatten(2).transpose(1, 2)
        return x[:, prefix:]

    return network, features


def _digest(network: nn.Module) -> str:
    """Return the sha256 over all tensors: names, shapes, types and bytes."""
    found = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        plain = tensor.detach().cpu().contiguous().flatten()
        found.update(plain.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
