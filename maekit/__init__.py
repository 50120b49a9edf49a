"""maekit: masked-autoencoder pretraining of images and videos. Importing it never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maekit.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from maekit.model import MaskedAutoencoder

__all__ = ["__version__", "load"]


def load(source: str | Path, clip: tuple[int, int, int] | None = None) -> MaskedAutoencoder:
    """Load a model from a run folder or a maekit weights file.

    Args:
        clip: frames, height and width in pixels, where the model shall take others than those that
            it was trained at; its positions are then resized.

    Returns:
        The model in evaluation mode on the CPU. ``model.encode(pixels [B, C, T, H, W])`` gives
        features; ``model.statistics`` has the mean and std that pixels are normalised with.

    Raises:
        WeightsError: the file cannot be read or does not match its own header.
        PartError: the clip does not divide into the model's patches.
    """
    from maekit.engine.build import load_model

    model, _ = load_model(source, clip)
    return model
