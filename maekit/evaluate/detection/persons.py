"""Persons found by one of torchvision's detectors, whose weights lie in a file."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from maekit.errors import RecipeError, WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

PERSON = 1  # COCO's number
MODELS = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
)
Corners = tuple[float, float, float, float]


class Persons(NamedTuple):
    """Persons of a frame: corners as fractions, and how sure each is."""

    corners: list[Corners]
    scores: list[float]


class PersonDetector:
    """One of torchvision's detectors with given weights; nothing is downloaded.

    Args:
        name: of ``torchvision.models.detection``.
        path: its state dict, as torchvision publishes it (COCO, 91 classes).
        device: where it runs.
        least: persons that are at least so sure are taken.

    Raises:
        RecipeError: there is no such detector, or no such file.
        WeightsError: it holds no weights of this model.
    """

    def __init__(self, name: str, path: Path, device: torch.device, least: float) -> None:
        from torchvision.models import detection

        if name not in MODELS:
            raise RecipeError(
                f"no detector {name}", where="--persons-model", hint=f"known: {', '.join(MODELS)}"
            )
        if not path.is_file():
            hint = "the .pth of a detector of torchvision's, or --boxes"
            raise RecipeError(f"there is no file {path}", where="--persons", hint=hint)
        self._model: nn.Module = getattr(detection, name)(weights=None, weights_backbone=None)
        hint = f"weights of {name} as torchvision publishes them, or another --persons-model"
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self._model.load_state_dict(state)
        except (OSError, RuntimeError, ValueError, TypeError, EOFError) as error:
            what = f"holds no weights of {name}: {str(error).splitlines()[0]}"
            raise WeightsError(what, where=str(path), hint=hint) from error
        except (pickle.UnpicklingError, AttributeError) as error:
            raise WeightsError("is no file of weights", where=str(path), hint=hint) from error
        self._model.to(device).eval()
        self._device, self._least = device, least

    @torch.inference_mode()
    def __call__(self, frame: np.ndarray) -> Persons:
        """Find the persons of a frame, uint8 ``[H, W, C]``."""
        color = np.broadcast_to(frame, (*frame.shape[:2], 3))
        pixels = torch.from_numpy(color.copy()).permute(2, 0, 1).to(self._device) / 255
        (found,) = self._model([pixels])
        wanted = (found["labels"] == PERSON) & (found["scores"] >= self._least)
        height, width = frame.shape[:2]
        boxes = found["boxes"][wanted].double().cpu().numpy() / np.array([width, height] * 2)
        corners = [tuple(each) for each in np.clip(boxes, 0, 1).tolist()]
        return Persons(corners, found["scores"][wanted].tolist())
