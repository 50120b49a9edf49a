"""Data sets with one fault each, by the promise that they break; and data sets without."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from maekit.contracts import DataError, Dataset, PartOptions, Source, SourceInfo


class Honest(Dataset):
    """Files of a folder, numpy's or pictures."""

    class Options(PartOptions):
        path: Path = Field(description="a folder of .npy files [T, H, W, C]")

    def __init__(self, options: Any) -> None:
        self.options = options
        self.files = sorted(str(each) for each in Path(options.path).glob("*.npy"))
        self.classes: Sequence[str] | None = ("even", "odd")
        self.labels = [index % 2 for index in range(len(self.files))]

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files[index]

    def array(self, index: int) -> np.ndarray:
        with open(self.files[index], "rb") as file:  # noqa: PTH123
            found: np.ndarray = np.load(file)
        return found

    def info(self, index: int, array: np.ndarray) -> SourceInfo:
        t, h, w, c = array.shape
        return SourceInfo(self.name(index), h, w, c, str(array.dtype), t, label=index % 2)

    def open(self, index: int) -> Source:
        array = self.array(index)

        def read(frame_ids: Sequence[int]) -> np.ndarray:
            return array[list(frame_ids)]

        return Source(self.info(index, array), read)


class NotPicklable(Honest):
    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.twist: Callable[[Any], Any] = lambda array: array


class OpenFile(Honest):
    """Keeps a handle of the last file: pickled before reading, not after."""

    handle: Any = None

    def array(self, index: int) -> np.ndarray:
        self.handle = Path(self.files[index]).open("rb")  # noqa: SIM115
        found: np.ndarray = np.load(self.handle)
        return found


class WrongDtype(Honest):
    def info(self, index: int, array: np.ndarray) -> SourceInfo:
        return super().info(index, array)._replace(dtype="float32")


class WrongHeight(Honest):
    def info(self, index: int, array: np.ndarray) -> SourceInfo:
        return super().info(index, array)._replace(height=array.shape[1] + 2)


class Float64(Honest):
    def array(self, index: int) -> np.ndarray:
        return super().array(index).astype(np.float64)


class TooManyFrames(Honest):
    def info(self, index: int, array: np.ndarray) -> SourceInfo:
        return super().info(index, array)._replace(frames=array.shape[0] + 1)


class Substitutes(Honest):
    """Gives its first sample where one cannot be read."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.spare = super().array(0) * 0 + 7

    def array(self, index: int) -> np.ndarray:
        try:
            return super().array(index)
        except OSError:
            return self.spare


class Wraps(Honest):
    """Starts again beyond its end."""

    def open(self, index: int) -> Source:
        return super().open(index % len(self))


class SameForAll(Honest):
    def array(self, index: int) -> np.ndarray:
        return super().array(0)


class SortsFrames(Honest):
    def open(self, index: int) -> Source:
        source = super().open(index)
        return Source(source.info, lambda ids: source.read(sorted(ids)))


class DropsRepeats(Honest):
    def open(self, index: int) -> Source:
        source = super().open(index)
        return Source(source.info, lambda ids: source.read(list(dict.fromkeys(ids))))


class CropsLie(Honest):
    """Says that it crops, and gives the middle whatever the box."""

    def open(self, index: int) -> Source:
        source = super().open(index)

        def read(ids: Sequence[int], box: Any = None, size: Any = None) -> np.ndarray:
            clip = source.read(ids)
            return clip if size is None else clip[:, : size[0], : size[1]]

        return Source(source.info._replace(crops=True), read)


class CropsAtAnotherSize(Honest):
    def open(self, index: int) -> Source:
        source = super().open(index)

        def read(ids: Sequence[int], box: Any = None, size: Any = None) -> np.ndarray:
            return source.read(ids)

        return Source(source.info._replace(crops=True), read)


def slope(array: np.ndarray) -> np.ndarray:
    """Return a picture of the same shape in which everything changes slowly."""
    down, across = (np.linspace(0, 1, size) for size in array.shape[1:3])
    light = 20 * (1 + down[:, None] + 2 * across) + array[0, 0, 0, 0] % 7
    return np.broadcast_to(light[None, ..., None], array.shape).astype(array.dtype)


class CropsLieOnSlopes(CropsLie):
    """Likewise, of smooth pictures, where the wrong place differs by a few levels."""

    def array(self, index: int) -> np.ndarray:
        return slope(super().array(index))


class CropsAcross(Honest):
    """Takes a box as (left, top, width, height)."""

    def array(self, index: int) -> np.ndarray:
        return slope(super().array(index))

    def open(self, index: int) -> Source:
        source = super().open(index)

        def read(ids: Sequence[int], box: Any = None, size: Any = None) -> np.ndarray:
            clip = source.read(ids)
            return clip if box is None else cut(clip, (*box[1::-1], *box[:1:-1]), size)

        return Source(source.info._replace(crops=True), read)


def cut(clip: np.ndarray, box: Any, size: Any) -> np.ndarray:
    """Cut a box out and resize it, by another filter than the core."""
    top, left, height, width = (round(each) for each in box)
    frames = clip[:, top : top + height, left : left + width]
    pictures = (Image.fromarray(each).resize((size[1], size[0]), Image.BOX) for each in frames)
    return np.stack([np.asarray(each) for each in pictures])


class LabelsLie(Honest):
    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.labels = [0 for _ in self.files]


class TooFewLabels(Honest):
    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.labels = self.labels[:-1]


class LabelBeyondClasses(Honest):
    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.classes = ("even",)


class HandsOutItsCache(Honest):
    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.cache: dict[int, np.ndarray] = {}

    def array(self, index: int) -> np.ndarray:
        if index not in self.cache:
            self.cache[index] = super().array(index)
        return self.cache[index]

    def open(self, index: int) -> Source:
        array = self.array(index)

        def read(frame_ids: Sequence[int]) -> np.ndarray:
            ids = list(frame_ids)
            step = ids[1] - ids[0] if len(ids) > 1 else 1
            if step > 0 and ids == list(range(ids[0], ids[-1] + 1, step)):
                return array[ids[0] : ids[-1] + 1 : step]  # a view
            return array[ids]

        return Source(self.info(index, array), read)


class OtherId(Honest):
    def info(self, index: int, array: np.ndarray) -> SourceInfo:
        return super().info(index, array)._replace(id=f"sample {index}")


class Nameless(Honest):
    def name(self, index: int) -> str:
        return ""


class OneName(Honest):
    def name(self, index: int) -> str:
        return str(self.options.path)


class Augments(Honest):
    def array(self, index: int) -> np.ndarray:
        array = super().array(index)
        return array if np.random.default_rng().random() < 0.5 else array[:, :, ::-1]


class DrawsGlobally(Honest):
    def array(self, index: int) -> np.ndarray:
        random.random()
        return super().array(index)


class LengthLies(Honest):
    def __len__(self) -> int:
        return len(self.files) + 1


class Empty(Honest):
    def __len__(self) -> int:
        return 0


class ImportsTorch(Honest):
    def array(self, index: int) -> np.ndarray:
        import torch

        found: np.ndarray = torch.from_numpy(super().array(index)).numpy()
        return found


class DeadOption(Honest):
    class Options(Honest.Options):
        unread: bool = Field(False, description="read by nobody")


class Misspelled(Honest):
    def source(self, by: str) -> Sequence[str]:
        return ["one"] * len(self)


class FewSources(Honest):
    def sources(self, by: str) -> Sequence[str]:
        return ["one"]


class TakesRelativePaths(Honest):
    """Reads by a position in a list that it shuffles when it is built."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        np.random.default_rng().shuffle(self.files)
        self.labels, self.classes = None, None  # type: ignore[assignment]


REVIEWED: dict[type[Dataset], str] = {
    NotPicklable: "can_be_sent_to_loader_workers",
    WrongDtype: "headers_are_true",
    WrongHeight: "headers_are_true",
    TooManyFrames: "opens_every_sample",
    Substitutes: "never_puts_another_sample_in_its_place",
    SortsFrames: "reads_frames_as_they_are_asked_for",
    DropsRepeats: "reads_frames_as_they_are_asked_for",
    CropsLie: "crops_where_it_says_so",
    LabelsLie: "labels_are_those_of_the_samples",
    LabelBeyondClasses: "labels_are_among_its_classes",
    HandsOutItsCache: "keeps_what_it_hands_out_apart",
    OtherId: "names_a_sample_as_it_opens_it",
    Augments: "reads_the_same_each_time",
    LengthLies: "opens_every_sample",
    ImportsTorch: "reads_the_same_in_a_worker_without_torch",
}
MORE: dict[type[Dataset], str] = {
    OpenFile: "can_be_sent_to_loader_workers",
    Float64: "headers_are_true",
    Wraps: "refuses_a_sample_that_is_not_there",
    SameForAll: "never_puts_another_sample_in_its_place",
    CropsAtAnotherSize: "crops_where_it_says_so",
    CropsLieOnSlopes: "crops_where_it_says_so",
    CropsAcross: "crops_where_it_says_so",
    TooFewLabels: "labels_are_those_of_the_samples",
    Nameless: "names_a_sample_as_it_opens_it",
    OneName: "names_a_sample_as_it_opens_it",
    DrawsGlobally: "leaves_global_generators_alone",
    Empty: "holds_a_sample",
    DeadOption: "every_option_is_read",
    Misspelled: "members_are_spelled_as_the_contract_spells_them",
    FewSources: "says_where_samples_come_from",
    TakesRelativePaths: "reads_the_same_each_time",
}


class Cached(Honest):
    """Correct: keeps what it decoded, and gives copies that nobody can write into."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.cache: dict[int, np.ndarray] = {}

    def array(self, index: int) -> np.ndarray:
        if index not in self.cache:
            self.cache[index] = super().array(index)
            self.cache[index].flags.writeable = False
        return self.cache[index]


class Crops(Honest):
    """Correct: cuts and resizes by itself."""

    def open(self, index: int) -> Source:
        source = super().open(index)

        def read(ids: Sequence[int], box: Any = None, size: Any = None) -> np.ndarray:
            clip = source.read(ids)
            return clip if box is None else cut(clip, box, size)

        return Source(source.info._replace(crops=True), read)


class CropsSlopes(Crops):
    """Correct: likewise, of smooth pictures."""

    def array(self, index: int) -> np.ndarray:
        return slope(super().array(index))


class CropsFlat(Crops):
    """Correct: likewise, of pictures that are the same everywhere; each has its own gray."""

    def array(self, index: int) -> np.ndarray:
        return np.full_like(super().array(index), 40 * index + 10)


class Unlabeled(Honest):
    """Correct: knows no labels, and reads floats."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.classes, self.labels = None, None  # type: ignore[assignment]

    def array(self, index: int) -> np.ndarray:
        return super().array(index).astype(np.float32) / 255

    def info(self, index: int, array: np.ndarray) -> SourceInfo:
        return super().info(index, array)._replace(label=None)


class Stills(Honest):
    """Correct: pictures of one frame, each of its own size."""

    def array(self, index: int) -> np.ndarray:
        return super().array(index)[:1, : 12 + index]

    def open(self, index: int) -> Source:
        if not 0 <= index < len(self):
            raise DataError(f"sample {index} of {len(self)}")
        return super().open(index)


class Twins(Honest):
    """Correct: two of its samples are alike, and it keeps lists under names of its own."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.label = self.names = [str(each) for each in self.files]

    def array(self, index: int) -> np.ndarray:
        return super().array(index - index % 2)


CORRECT = (Honest, Cached, Crops, CropsSlopes, CropsFlat, Unlabeled, Stills, Twins)
