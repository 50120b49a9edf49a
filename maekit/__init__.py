"""maekit: masked-autoencoder pretraining of images and videos. Importing it never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maekit.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from maekit.evaluate.classifier import Classifier
    from maekit.model import MaskedAutoencoder
    from maekit.weights.header import Header

__all__ = ["__version__", "load", "load_classifier"]


def load(source: str | Path, clip: tuple[int, int, int] | None = None) -> MaskedAutoencoder:
    """Load a model from a run folder, a weights file of maekit or of others, or ``timm:NAME``.

    Weights of facebookresearch/mae and mae_st, VideoMAE and VideoMAEv2, MoCo v3, timm's plain ViTs
    and transformers' ViTMAE and VideoMAE are recognized by their keys.

    Args:
        clip: frames, height and width in pixels, where the model shall take others than those that
            it was trained at; its positions are then resized.

    Returns:
        The model in evaluation mode on the CPU. ``model.encode(pixels [B, C, T, H, W])`` gives
        features; ``model.statistics`` has the mean and std that pixels are normalized with.

    Raises:
        WeightsError: the file cannot be read or does not match its own header.
        PartError: the clip does not divide into the model's patches.
    """
    from maekit.engine.build import load_model

    model, _ = load_model(source, clip)
    return model


def load_classifier(source: str | Path) -> tuple[Classifier, Header]:
    """Load what ``maekit finetune`` left in a run folder or weights file.

    Returns:
        The classifier in evaluation mode on the CPU, and its header. ``model(pixels)`` gives
        logits ``[B, K]`` of ``model.normalize(pixels in [0, 1])``, ``model.features`` what the head
        gets; ``header.classifier.outputs`` names the classes.

    Raises:
        WeightsError: the file cannot be read, or holds no classifier.
    """
    from maekit.evaluate.classifier import load_classifier as work

    return work(source)
