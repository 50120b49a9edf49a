"""Target ``dvae-token``: the codes that a frozen discrete VAE gives a patch (MAE table 1d)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from maekit.contracts import PartContext, PartOptions, Target, View
from maekit.errors import RecipeError, WeightsError
from maekit.targets.dvae_networks import as_pictures, check_range
from maekit.targets.dvae_weights import read_encoder
from maekit.weights.locate import find_weights
from maekit.weights.safetensors_io import sha256

_log = logging.getLogger(__name__)
_CODES_LOOKED_AT = 20_000
_FEW_CODES = 4  # in equal shares; a dVAE of minutes (recipes/dvae_tiny.yaml) has 20 and more

if TYPE_CHECKING:
    from maekit.targets.dvae_networks import Encoder
    from maekit.tokens import Mask


class DVAEToken(Target):
    """Cross-entropy over the codes of a second view of the same crop.

    The view is resized so that one code stands for one token: ``grid * stride`` pixels, 112 x 112
    for 14 x 14 tokens and DALL-E's stride of 8. Of a clip it has one frame for each time slot.

    Codes are not pixels, and a code's picture depends on its neighbors', which the encoder of the
    dVAE takes from hidden pixels too: this target paints no pictures.
    """

    class Options(PartOptions):
        pinned: ClassVar[Mapping[str, str]] = {"weights": "sha256"}

        weights: Path = Field(
            description="a run of `maekit tokenizer`, its weights, or a state dict with the keys "
            "of DALL-E's encoder (.safetensors, or .pth)"
        )
        vocabulary: int = Field(8192, ge=2, description="codes of the dVAE (DALL-E: 8192)")
        stride: int = Field(8, ge=1, description="pixels a side of one of its codes (DALL-E: 8)")
        sha256: str | None = Field(
            None,
            pattern="^[0-9a-f]{64}$",
            description="of the file of weights, which is refused if it has another; runs keep it",
        )

    def __init__(self, options: Options, context: PartContext) -> None:
        self.options = options
        self.channels = context.channels
        grid, stride = context.grid, options.stride
        self.views = (View("dvae", (grid.h * stride, grid.w * stride), "bicubic", grid.t),)
        self.out_dim = options.vocabulary
        self._encoder: Encoder | None = None
        self._checked = False

    def open(self) -> dict[str, str]:
        """Read the encoder; returns the option that pins it down.

        Raises:
            RecipeError: the file does not exist.
            WeightsError: it cannot be read, is another file than ``sha256`` says, or its dVAE is of
                another vocabulary, stride or number of channels.
        """
        options = self.options
        try:
            path = find_weights(options.weights)
        except RecipeError as error:
            hint = "train one with `maekit tokenizer dvae_tiny`, or give DALL-E's encoder"
            where = "pretrain.target.weights"
            raise RecipeError(error.what, where=where, hint=hint) from error
        digest = sha256(path)
        if options.sha256 not in (None, digest):
            msg = f"this file has sha256 {digest}, and {options.sha256} is expected"
            hint = "give the dVAE that these weights were trained against"
            raise WeightsError(msg, where=str(path), hint=hint)
        encoder, sizes, channels = read_encoder(path)
        expected = {
            "vocabulary": (sizes.vocabulary, options.vocabulary),
            "stride": (sizes.stride, options.stride),
            "channels": (channels, self.channels),
        }
        differences = [
            f"{key}: {found} in the weights, {ours} in the recipe"
            for key, (found, ours) in expected.items()
            if found != ours
        ]
        if differences:
            msg = "the dVAE is another one: " + "; ".join(differences)
            hint = "set pretrain.target.vocabulary and .stride (and data.channels) to the dVAE's"
            raise WeightsError(msg, where=str(path), hint=hint)
        self._encoder = encoder.eval().requires_grad_(requires_grad=False)
        return {"sha256": digest}

    def fit(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """Fit nothing, but look at the codes of the first samples: a collapsed dVAE has few.

        What hardly varies is predicted at once, and teaches nothing: the log warns of it.
        """
        counts, seen = torch.zeros(self.options.vocabulary, dtype=torch.int64), 0
        for views in batches:
            codes = self._codes(views)
            counts += torch.bincount(codes.flatten().cpu(), minlength=len(counts))
            seen += codes.numel()
            if seen >= _CODES_LOOKED_AT:
                break
        if not seen:
            return
        shares = counts[counts > 0] / seen
        effective = float(torch.exp(-(shares * shares.log()).sum()))
        if effective < _FEW_CODES:
            _log.warning(
                "the dVAE uses %s of its %s codes on these samples, as unevenly as %.1f codes in "
                "equal shares: there is little to learn from predicting them; train the dVAE "
                "longer, or with another pretrain.target.weights",
                f"{len(shares):,}",
                f"{len(counts):,}",
                effective,
            )

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        """Turn the view ``[B, C, t, h*S, w*S]`` in [0, 1] into codes, int64 ``[B, Q]``."""
        codes = self._codes(views)
        return codes.gather(1, mask.queries)

    def _codes(self, views: Sequence[Tensor]) -> Tensor:
        """Return all codes of the second view, int64 ``[B, N]``."""
        clips = views[1].float()
        encoder = self._on(clips.device)
        if not self._checked:  # once: reading it back makes an accelerator wait
            check_range(clips, "pretrain.target")
            self._checked = True
        # Autocast would round the truth to half precision.
        with torch.no_grad(), torch.autocast(clips.device.type, enabled=False):
            codes = encoder.codes(as_pictures(clips))
        return codes.view(len(clips), -1)

    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the cross-entropy ``[B, Q]`` of logits ``[B, Q, vocabulary]``, in nats."""
        logits = pred.float().flatten(0, 1)
        return F.cross_entropy(logits, target.flatten(), reduction="none").view_as(target)

    def _on(self, device: torch.device) -> Encoder:
        """Return the encoder on a device; read it first if that has not been done."""
        if self._encoder is None:
            self.open()
        encoder = cast("Encoder", self._encoder)
        return encoder if encoder.device == device else encoder.to(device)
