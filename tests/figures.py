"""Key frames with two figures each, whose action is their color: learned in a few steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from small_recipes import VIDEOS, Recipe, laid_over, write_clip

from maekit.contracts import Boxes, Dataset, Source, SourceInfo
from maekit.errors import DataError
from maekit.recipe.load import read
from maekit.recipe.schema import Recipe as Schema
from maekit.registry import resolve

ACTIONS = ("red", "green", "blue")


@dataclass
class Figures(Dataset):
    """``count`` key frames of movies of three each; every other one is wide.

    Args:
        count: of key frames.
        seed: of colors and places.
        detected: boxes are found by a detector, a little off, and true ones are not asked for.
        broken: rows that cannot be opened.
    """

    count: int
    seed: int = 0
    detected: bool = False
    broken: frozenset[int] = field(default_factory=frozenset)
    excluded: Sequence[Boxes] = ()
    judged: Sequence[int] | None = None

    def __post_init__(self) -> None:
        self.classes = ACTIONS
        self.drawn = [self._draw(row) for row in range(self.count)]
        self.labels = [label for _, label in self.drawn]

    def _draw(self, row: int) -> tuple[np.ndarray, Boxes]:
        rng = np.random.default_rng((self.seed, row))
        height, width = 32, (48 if row % 2 else 32)
        picture = rng.integers(90, 166, (height, width, 3)).astype(np.uint8)
        corners, labels = [], []
        for half in rng.permutation(2).tolist():  # so that the first one may stand on either side
            action = int(rng.integers(3))
            left = round(half * width / 2) + int(rng.integers(0, 3))
            top, right = int(rng.integers(0, 6)), left + width // 2 - 4
            color = np.zeros(3, np.uint8)
            color[action] = 255
            picture[top : top + 22, left:right] = color
            corners.append([left / width, top / height, right / width, (top + 22) / height])
            labels.append(frozenset({action}))
        moment = {"movie": f"movie{row // 3}", "second": 902.0 + row % 3}
        true = Boxes(np.array(corners), tuple(labels), persons=(1, 2), **moment)  # type: ignore[arg-type]
        if not self.detected:
            return picture, true
        off = np.clip(true.corners + rng.normal(0, 0.01, (2, 4)), 0, 1)
        both = Boxes(
            np.concatenate([true.corners, off]),
            (*true.labels, *true.labels),
            scores=(1.0, 1.0, 0.9, 0.95),
            truth=(True, True, False, False),
            asked=(False, False, True, True),
            **moment,  # type: ignore[arg-type]
        )
        return picture, both

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return self.labels[index].frame

    def open(self, index: int) -> Source:
        if index in self.broken:
            raise DataError("has no such second", where=self.name(index))
        picture, label = self.drawn[index]
        height, width, _ = picture.shape
        info = SourceInfo(label.frame, height, width, 3, frames=9, fps=25.0, label=label)
        return Source(info, partial(_read, picture), _at)


def _at(seconds: Sequence[float], late: float) -> list[int]:
    return [int(np.clip(round(4 + second * 25), 0, 8)) for second in seconds]


def _read(picture: np.ndarray, frame_ids: Sequence[int]) -> np.ndarray:
    return np.stack([picture] * len(frame_ids))


BASE: Recipe = laid_over(
    VIDEOS,
    {
        "data": {
            "train": {"path": "a", "frames": 2, "stride": 4, "sampling": "centered"},
            "val": {"path": "b", "frames": 2, "stride": 4, "sampling": "centered"},
            "size": 32,
        },
        "finetune": {
            "steps": 40,
            "batch": {"global": 8, "per_device": 4},
            "optimizer": {"base_lr": 0.1},
            "norm": "pretrained",
            "head": {"kind": "detection"},
            "augment": {"name": "none", "flip": 0.5},
            "boxes": {"bins": 3, "aligned": True, "short": 32},
            "validate": {"every": 20},
        },
    },
    without=("pretrain", "model.decoder"),
)


def resolved(*layers: Recipe) -> Schema:
    """Resolve ``BASE`` with layers over it."""
    text = yaml.safe_load(yaml.safe_dump(laid_over(BASE, *layers)))
    return resolve(read(text), "finetune")


def draw_films(folder: Path, count: int, seed: int) -> Path:
    """Write films of ``Figures``, a key frame each, and a list of one's own of their boxes.

    It is at a fifth of a second, and the list names actions.
    """
    figures = Figures(count, seed)
    lines = ["video,second,x1,y1,x2,y2,label"]
    for number, (picture, boxes) in enumerate(figures.drawn):
        write_clip(folder / f"film{number}.mp4", np.repeat(picture[None], 12, axis=0))
        for corners, actions in zip(boxes.corners.tolist(), boxes.labels, strict=True):
            box = ",".join(f"{value:.4f}" for value in corners)
            lines += [f"film{number},0.2,{box},{ACTIONS[action]}" for action in actions]
    listed = folder / "boxes.csv"
    listed.write_text("\n".join(lines) + "\n")
    return listed


def of_films(folder: str | Path) -> Recipe:
    """Return the layer that has ``BASE`` read the films of ``train`` and ``val`` in a folder."""
    return {
        "data": {
            split: {
                "name": "ava",
                "path": f"{folder}/{split}/boxes.csv",
                "videos": f"{folder}/{split}",
            }
            for split in ("train", "val")
        }
    }
