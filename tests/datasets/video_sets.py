"""Sets of videos, opened as a recipe opens them, and what they hold."""

from __future__ import annotations

from pathlib import Path

from maekit.datasets.videos import Videos


def videos(path: Path, **options: object) -> Videos:
    return Videos(Videos.Options(path=str(path), **options))


def listed(folder: Path, text: str, **options: object) -> Videos:
    path = folder.parent / "list.csv"
    path.write_text(text, encoding="utf-8")
    return videos(path, root=str(folder), **options)


def frames_of(dataset: Videos) -> list[int]:
    return [dataset.open(index).info.frames for index in range(len(dataset))]


def labels_of(dataset: Videos) -> list[int | None]:
    return [dataset.open(index).info.label for index in range(len(dataset))]
