"""``sample-actions``: movies with boxes that maekit draws itself, in AVA's own file formats.

Two or three figures a movie, each with an action of its own in a known box. Movies have 25 or 30
frames a second and two widths, ten seconds and two acts; boxes are known at four seconds of them,
and at a fifth, where the acts meet, which is excluded. Beside them lie persons as a detector would
find them: a little off, some missed, some where nobody is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from maekit.datasets.ava import Ava
from maekit.datasets.drawing.actions import ACTIONS, POSES, VERSION, Movie, draw_movie
from maekit.datasets.sample_videos import encode, encoder
from maekit.datasets.samples import Drawing, SampleOptions, Samples

_COUNTS = {"train": 48, "val": 16}
_LENGTH = 10  # seconds
_KEYS = (2, 3, 7, 8)
_EXCLUDED = 5
_RATES = (25, 30)
_HEIGHTS = (3 / 4, 9 / 16)  # of the width
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
_NAME = 11  # characters, as of YouTube's movies
_OFF = 0.03  # of a box's width and height, that a detected one is off
_MISSED, _INVENTED = 0.04, 0.1  # shares of persons


class SampleActions(Samples):
    """Movies of figures that sway, hop, spin, pulse, rest or blink, drawn on first use and kept."""

    class Options(SampleOptions):
        """Number and size of the movies."""

        count: int | None = Field(
            None, ge=2, le=10_000, description="movies; unset: 48 to train, 16 to validate"
        )
        size: int = Field(96, ge=64, le=512, multiple_of=16, description="width in pixels")
        persons: Literal["truth", "detected"] = Field(
            "truth", description="the boxes that a model learns, or is asked for"
        )

    def __init__(self, options: Options) -> None:
        codec, settings = encoder()
        lists = _Lists(options.split)

        def write(file: Path, _: str, rng: np.random.Generator) -> None:
            number = int(file.stem)
            name = "".join(_LETTERS[place] for place in rng.integers(len(_LETTERS), size=_NAME))
            rate, share = _RATES[number % 2], _HEIGHTS[number // 2 % 2]
            size = (round(options.size * share / 2) * 2, options.size)
            movie = draw_movie(_LENGTH * rate, rate, size, rng)
            coded = encode(movie.frames, codec, settings, rate)
            file.with_name(f"{name}.mp4").write_bytes(coded)
            lists.add(name, movie, rate, rng)

        drawing = Drawing(
            name="sample-actions",
            noun="movies",
            classes=["movies"],
            count=options.count or _COUNTS[options.split],
            content=[VERSION, codec, settings, options.size],
            suffix=".mp4",
            write=write,
            finish=lists.write,
            each=len(_KEYS),
        )
        detected = options.persons == "detected"

        def read(folder: Path) -> Ava:
            files = _files(folder, options.split)
            persons = files["persons"] if detected else None
            return Ava(
                Ava.Options(
                    path=files["boxes"],
                    videos=folder / "movies",
                    actions=files["actions"],
                    excluded=files["excluded"],
                    included=files["included"],
                    persons=persons,
                )
            )

        super().__init__(options, drawing, read)


def _files(folder: Path, split: str) -> dict[str, Path]:
    return {
        "boxes": folder / f"ava_{split}_v2.2.csv",
        "actions": folder / "ava_action_list_v2.2.pbtxt",
        "excluded": folder / f"ava_{split}_excluded_timestamps_v2.2.csv",
        "included": folder / "ava_included_timestamps_v2.2.txt",
        "persons": folder / f"ava_{split}_predicted_boxes.csv",
    }


@dataclass
class _Lists:
    """The lines of AVA's lists, as movies are drawn."""

    split: str
    boxes: list[str] = field(default_factory=list)
    persons: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)

    def add(self, name: str, movie: Movie, rate: int, rng: np.random.Generator) -> None:
        """Add a movie's rows."""
        numbers = {action: number for number, action in enumerate(ACTIONS, 1)}
        self.excluded.append(f"{name},{_EXCLUDED:04d}")
        for second in sorted((*_KEYS, _EXCLUDED)):
            key = f"{name},{second:04d}"
            for seen in movie.seen(second * rate):
                box = ",".join(f"{value:.3f}" for value in seen.corners)
                self.boxes += [
                    f"{key},{box},{numbers[does]},{seen.figure}" for does in seen.actions
                ]
                if rng.random() >= _MISSED:
                    self.persons.append(f"{key},{_found(seen.corners, rng)}")
                if rng.random() < _INVENTED:
                    left, up = rng.uniform(0, 0.8, 2)
                    made = (left, up, left + 0.15, up + 0.2)
                    self.persons.append(f"{key},{_found(made, rng, least=0.3)}")

    def write(self, folder: Path) -> None:
        """Write the lists into a folder."""
        types = ["PERSON_MOVEMENT"] * len(POSES) + ["OBJECT_MANIPULATION"]
        items = [
            f'label {{\n  name: "{name}"\n  label_id: {number}\n  label_type: {kind}\n}}'
            for (number, name), kind in zip(enumerate(ACTIONS, 1), types, strict=True)
        ]
        lines = {
            "boxes": self.boxes,
            "actions": items,
            "excluded": self.excluded,
            "included": [f"{second:04d}" for second in range(2, _LENGTH - 1)],
            "persons": self.persons,
        }
        for what, path in _files(folder, self.split).items():
            path.write_text("\n".join(lines[what]) + "\n", "utf-8")


def _found(corners: tuple[float, ...], rng: np.random.Generator, least: float = 0.7) -> str:
    """Return a row of what a detector would find: a little off, without a label, with a score."""
    x1, y1, x2, y2 = corners
    extent = np.array([x2 - x1, y2 - y1] * 2)
    moved = np.clip(np.array(corners) + rng.normal(0, _OFF / 2, 4) * extent, 0, 1)
    return ",".join(f"{value:.3f}" for value in moved) + f",,{rng.uniform(least, 1):.6f}"
