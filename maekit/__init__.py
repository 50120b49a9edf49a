"""maekit: masked-autoencoder pretraining of images and videos. Importing it never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maekit.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from maekit.model import MaskedAutoencoder

__all__ = ["__version__", "load"]


def load(source: str | Path) -> MaskedAutoencoder:
    """Load a model from a run folder, a weights file of maekit or of others, or ``timm:NAME``.

    Weights of facebookresearch/mae and mae_st, VideoMAE and VideoMAEv2, MoCo v3, timm's plain ViTs
    and transformers' ViTMAE and VideoMAE are recognised by their keys.

    Returns:
        The model in evaluation mode on the CPU. ``model.encode(pixels [B, C, T, H, W])`` gives
        features; ``model.statistics`` has the mean and std that pixels are normalised with.

    Raises:
        WeightsError: the file cannot be read or does not match its own header.
    """
    from maekit.engine.build import load_model

    model, _ = load_model(source)
    return model
