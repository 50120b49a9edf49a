"""Our models against MAE, VideoMAE and mae_st written out from their formulas.

Non-square pictures and patches, any number of channels, clips, every target: what no other
implementation at hand can run.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import paper_reference as paper
import pytest
import torch
from agreement import (
    GRADIENT_TOLERANCE,
    QUIET,
    assert_agree,
    gradients,
    random_hidden,
    randomize,
    uneven_pixels,
)
from torch import Tensor

from maekit.data.batch import Batch
from maekit.engine.build import build_model
from maekit.engine.precision import Precision
from maekit.engine.step import PretrainStep
from maekit.model import MaskedAutoencoder
from maekit.weights.header import Header

BATCH = 2
MEAN, STD = (0.4, 0.5, 0.6, 0.45), (0.2, 0.3, 0.25, 0.35)
TARGETS: dict[str, tuple[dict[str, Any], paper.Target]] = {
    "mae": ({"name": "norm-pixel"}, paper.mae_normalized),
    "videomae": (
        {"name": "norm-pixel", "space": "unit", "statistics": "per-channel", "eps": "outside"},
        paper.videomae_normalized,
    ),
    "raw": ({"name": "pixel"}, paper.raw),
    "raw-unit": ({"name": "pixel", "space": "unit"}, paper.raw),
}
WIDTHS, HEADS = (32, 24), (4, 3)  # of encoder and decoder
MAE: dict[str, Any] = {"name": "image-vit"}
VIDEOMAE: dict[str, Any] = {"name": "video-vit"}
QV: dict[str, Any] = {"qkv_bias": "qv", "embed_bias": False}
SEPARABLE = {"positions": "learned-separable"}
MAE_ST = {"name": "video-vit", "qkv_bias": "all", "class_token": True} | SEPARABLE


class Case(NamedTuple):
    """A paper's model at some size, for any target."""

    clip: tuple[int, int, int]
    patch: tuple[int, int, int]
    channels: int
    backbone: dict[str, Any]
    decoder: dict[str, Any]

    def model(self, target: dict[str, Any], *, quiet: bool = False) -> MaskedAutoencoder:
        patch = self.patch[1:] if self.backbone == MAE else self.patch
        header = Header(
            backbone={"width": 32, "depth": 2, "heads": 4, "patch": list(patch), **self.backbone},
            decoder={"name": "vit", "width": 24, "depth": 2, "heads": 3, **self.decoder},
            target=target, clip=self.clip, channels=self.channels,
            mean=MEAN[: self.channels], std=STD[: self.channels],
        )  # fmt: skip
        model = build_model(header).eval()
        randomize(model, std=0.2, quiet=quiet)
        return model

    def scaled(self, pixels: Tensor) -> Tensor:
        """[0, 1] pixels to the space that the encoder works in, in float64."""
        mean, std = (
            torch.tensor(values[: self.channels], dtype=torch.float64)[:, None, None, None]
            for values in (MEAN, STD)
        )
        return (pixels.double() - mean) / std

    def paper(self, weights: paper.Weights, *, quiet: bool = False) -> paper.Paper:
        """Return what the formulas need beside the weights; fixed tables are computed here."""
        t, h, w = (size // step for size, step in zip(self.clip, self.patch, strict=True))
        if self.backbone == VIDEOMAE:
            encoder, decoder = (paper.videomae_table((t, h, w), width) for width in WIDTHS)
            return paper.Paper(self.patch, *HEADS, encoder, decoder, key_bias=False)
        if self.backbone == MAE:
            scale = QUIET if quiet else 1.0
            encoder, decoder = (scale * paper.mae_table((t, h, w), width) for width in WIDTHS)
            zeros = [torch.zeros(width, dtype=torch.float64) for width in WIDTHS]
            return paper.Paper(self.patch, *HEADS, encoder, decoder, (zeros[0], zeros[1]))
        encoder, decoder = (paper.mae_st_table(weights, part) for part in ("backbone", "decoder"))
        return paper.Paper(self.patch, *HEADS, encoder[1:], decoder[1:], (encoder[0], decoder[0]))


CASES = {
    "mae": Case((1, 12, 32), (1, 4, 8), 3, MAE, {}),
    "mae-tall": Case((1, 20, 12), (1, 5, 4), 1, MAE, {}),
    "videomae": Case((4, 12, 16), (2, 4, 8), 3, VIDEOMAE, QV),
    "videomae-long": Case((6, 8, 4), (3, 4, 2), 4, VIDEOMAE, QV),
    "mae_st": Case((4, 12, 16), (2, 4, 8), 3, MAE_ST, SEPARABLE),
}
# VideoMAE's tables are constants, and as large as they are.
RUNS = [(case, target, False) for case in CASES for target in TARGETS]
RUNS += [(case, "mae", True) for case in CASES if CASES[case].backbone != VIDEOMAE]


def weights_of(model: MaskedAutoencoder) -> dict[str, Tensor]:
    """Float64 copies, those that are trained wanting gradients."""
    return {
        name: parameter.detach().double().requires_grad_(parameter.requires_grad)
        for name, parameter in model.named_parameters()
    }


def tokens_where(flags: Tensor) -> list[int]:
    return [token for token, flag in enumerate(flags.tolist()) if flag]


def expected(
    case: Case,
    setup: paper.Paper,
    weights: paper.Weights,
    pixels: Tensor,
    hidden: Tensor,
    target: str,
) -> dict[str, Tensor]:
    """Loss, prediction and encoder output of a batch, by the paper's own way through the decoder.

    MAE and mae_st predict the whole grid and weigh visible tokens with 0; VideoMAE predicts hidden
    tokens and takes the mean.
    """
    options, formula = TARGETS[target]
    encoded, predicted, errors = [], [], []
    for clip, row in zip(pixels, hidden, strict=True):
        visible, masked = tokens_where(~row), tokens_where(row)
        latent = paper.encode(case.scaled(clip), visible, weights, setup)
        if setup.class_row is None:
            asked, counts = masked, torch.ones(len(masked))
            pred = paper.videomae_decode(latent, visible, masked, weights, setup)
        else:
            asked, counts = list(range(len(row))), row
            pred = paper.mae_decode(latent, visible, weights, setup)
        aimed = clip.double() if options.get("space") == "unit" else case.scaled(clip)
        each = (pred - paper.truth(aimed, asked, case.patch, formula)).pow(2).mean(-1)
        errors.append(each * counts)
        predicted.append(pred[counts > 0])
        encoded.append(latent)
    total = torch.stack(errors).sum() / hidden.sum()
    return {"loss": total, "pred": torch.stack(predicted), "encoded": torch.stack(encoded)}


@pytest.mark.parametrize(("name", "target", "quiet"), RUNS)
def test_the_papers_numbers(name: str, target: str, quiet: bool) -> None:
    case = CASES[name]
    model = case.model(TARGETS[target][0], quiet=quiet)
    pixels = uneven_pixels(BATCH, case.channels, *case.clip)
    hidden = random_hidden(BATCH, model.grid.tokens, model.grid.tokens * 2 // 3)
    weights = weights_of(model)
    setup = case.paper(weights, quiet=quiet)
    theirs = expected(case, setup, weights, pixels, hidden, target)
    theirs["loss"].backward()
    out = model(model.normalize(pixels), hidden)
    total, count = step_loss(model, pixels, hidden)
    loss = total / count
    loss.backward()
    assert_agree({"loss": loss, "pred": out.pred, "encoded": out.encoded}, theirs)
    assert_agree({"loss": out.loss}, {"loss": theirs["loss"]})
    slopes = {n: w.grad for n, w in weights.items() if w.grad is not None}
    assert_agree(gradients(model), slopes, GRADIENT_TOLERANCE)


def step_loss(
    model: MaskedAutoencoder, pixels: Tensor, hidden: Tensor, decode: Tensor | None = None
) -> tuple[Tensor, float]:
    """As a run computes it: the sum of the loss over queries, and the sum of their weights."""
    batch = Batch(
        (pixels.numpy(),),
        hidden.numpy(),
        None if decode is None else decode.numpy(),
        np.ones(len(pixels), np.float32),
        np.zeros(len(pixels), np.int64),
        (),
        (),
    )
    step = PretrainStep(model, Precision.of("fp32", torch.device("cpu")))
    weighed = step.weigh(batch)
    return step.loss(weighed), weighed.weight


def test_dual_masking_is_videomaev2s_loss() -> None:
    """Mask tokens also stand for asked tokens that the encoder sees; only the others count."""
    case = CASES["videomae"]
    model = case.model(TARGETS["videomae"][0])
    pixels = uneven_pixels(3, 3, *case.clip)
    hidden = random_hidden(3, 12, 8)
    asked = random_hidden(3, 12, 6, seed=4)
    counted = (asked & hidden).sum(dim=1)
    assert counted.unique().numel() > 1, "rows count for as much as they have tokens that count"
    total, count = step_loss(model, pixels, hidden, asked)
    (total / count).backward()

    weights = weights_of(model)
    setup = case.paper(weights)
    error, weight = torch.zeros((), dtype=torch.float64), 0
    for clip, row, wanted in zip(pixels, hidden, asked, strict=True):
        visible, tokens = tokens_where(~row), tokens_where(wanted)
        encoded = paper.encode(case.scaled(clip), visible, weights, setup)
        pred = paper.videomae_decode(encoded, visible, tokens, weights, setup)
        aim = paper.truth(clip.double(), tokens, case.patch, paper.videomae_normalized)
        per_token = (pred - aim).pow(2).mean(dim=-1)
        for token, value in zip(tokens, per_token, strict=True):
            if row[token]:  # bool_masked_pos[~decode_mask]
                error, weight = error + value, weight + 1
    (error / weight).backward()
    assert count == weight
    assert_agree({"loss": total / count}, {"loss": error / weight})
    slopes = {n: w.grad for n, w in weights.items() if w.grad is not None}
    assert_agree(gradients(model), slopes, GRADIENT_TOLERANCE)
