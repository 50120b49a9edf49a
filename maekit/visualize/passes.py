"""One mask's pictures, put together from as many passes as it has, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from maekit.errors import DataError
from maekit.tokens import Mask, patchify
from maekit.visualize.fills import fills
from maekit.visualize.hiding import Pass
from maekit.visualize.painting import ceiling, laid, paint, picture, shown_range
from maekit.visualize.scores import MOST, Guess, Scores, guess

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.model import MaskedAutoencoder
    from maekit.visualize.hiding import Hiding


@dataclass(frozen=True)
class Painted:
    """Pictures ``[F, H, W, C]`` brought to [0, 1]: the original where nothing was predicted."""

    original: np.ndarray
    honest: np.ndarray
    leaking: np.ndarray | None
    ceiling: np.ndarray | None
    fills: dict[str, np.ndarray]
    asked: np.ndarray  # bool [N]: predicted in one of the passes


def paint_passes(model: MaskedAutoencoder, views: list[Tensor], hiding: Hiding) -> Painted:
    """Predict in as many passes as there are masks, and lay the patches together.

    Args:
        views: float clips ``[B, C, T, H, W]``, the model's own first; a batch shares the mask.

    Raises:
        DataError: the target predicts none of what is hidden.
    """
    wanted = _wanted(model)
    passes = [Pass(each.hidden, each.asked & wanted) for each in hiding.passes]
    passes = [each for each in passes if each.asked.any()]
    if not passes:
        what = "nothing of what is hidden is what the target predicts"
        raise DataError(what, where=hiding.label, hint="hide more, or other frames")
    # One sample at a time: what is held in between grows with the square of the tokens.
    samples = [
        _canvases(model, list(each), passes)
        for each in zip(*(view.split(1) for view in views), strict=True)
    ]
    canvases = {name: torch.cat([each[name] for each in samples]) for name in samples[0]}
    original = picture(model, patchify(views[0], model.backbone.patch))
    low, high = shown_range(model, original)
    shown = {
        name: frames_of((picture(model, canvas) - low) / (high - low))
        for name, canvas in canvases.items()
    }
    honest, leaking, best = shown.pop("honest"), shown.pop("leaking"), shown.pop("ceiling", None)
    leaks = not torch.equal(canvases["honest"], canvases["leaking"])
    original = frames_of((original - low) / (high - low))
    together = np.logical_or.reduce([each.asked for each in passes])
    return Painted(original, honest, leaking if leaks else None, best, shown, together)


def _canvases(
    model: MaskedAutoencoder, views: list[Tensor], passes: Sequence[Pass]
) -> dict[str, Tensor]:
    """Everything that is painted of one sample, by name, patches ``[1, N, P]``.

    Fills have their names, predictions are ``honest`` and ``leaking``, and with all of the
    target's views there is a ``ceiling``.
    """
    pixels = views[0]
    start = patchify(pixels, model.backbone.patch)
    canvases: dict[str, Tensor] = {}
    for each in passes:
        hidden, asked = (torch.from_numpy(tokens)[None] for tokens in (each.hidden, each.asked))
        mask = Mask.build(hidden, asked=asked).to(pixels.device)
        painting = paint(model, pixels, mask)
        patches = fills(pixels, mask, model.grid, model.backbone.patch)
        # So that whoever predicts zeros gains nothing on any picture. With norm-pixel per channel
        # it is interpolated_mean; with statistics that channels share it is gray, and with raw
        # pixels the data's mean, which no other fill is.
        patches["zero_prediction"] = painting.zero
        patches["honest"] = painting.honest
        patches["leaking"] = painting.honest if painting.leaking is None else painting.leaking
        if model.target is not None and len(views) > len(model.target.views):
            patches["ceiling"] = ceiling(model, views, mask)
        for name, laid_out in patches.items():
            canvases[name] = laid(canvases.get(name, start), laid_out, mask)
    return canvases


def score(painted: Painted, where: np.ndarray) -> Scores:
    """Compare everything with the original where ``where``, bool ``[F, H, W]``, says."""

    def against(shown: np.ndarray | None) -> Guess | None:
        return None if shown is None else guess(painted.original, shown, where)

    best = against(painted.ceiling)
    return Scores(
        guess(painted.original, painted.honest, where),
        {name: guess(painted.original, shown, where) for name, shown in painted.fills.items()},
        against(painted.leaking),
        None if best is None or best.psnr >= MOST else best,
        float(painted.asked.mean()),
    )


def _wanted(model: MaskedAutoencoder) -> np.ndarray:
    """Bool ``[N]``: what the target can be asked for."""
    wants = None if model.target is None else model.target.wants(model.grid)
    if wants is None:
        return np.ones(model.grid.tokens, np.bool_)
    return np.ascontiguousarray(wants).reshape(-1)


def frames_of(pictures: np.ndarray) -> np.ndarray:
    """``[B, T, H, W, C]`` to ``[B*T, H, W, C]``: all that are shown one after the other."""
    return pictures.reshape(-1, *pictures.shape[2:])
