"""The promises of datasets. Imports no torch, as datasets do not."""

from __future__ import annotations

import builtins
import io
import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias
from unittest import mock

import numpy as np

from maekit.contracts import Dataset, PartOptions, Source
from maekit.data.order import evenly
from maekit.data.pixels import DTYPES, crop_resize
from maekit.data.plan import Box
from maekit.testing.apart import in_worker
from maekit.testing.names import check_names
from maekit.testing.options import check_recipe, resolved, unread, watched
from maekit.testing.promises import NotApplicableError, Promises

_SEEN = 0.01  # of a picture's range: two places that are less apart look alike
_AGAIN = 4  # further reads of the first sample: what flips a coin is not found by one
_Box: TypeAlias = tuple[int, int, int, int]  # top, left, height, width
_Size: TypeAlias = tuple[int, int]

dataset_promises: Promises[DatasetTrial] = Promises()


@dataclass
class DatasetTrial:
    """A dataset that is built, anew each time, and some of its samples."""

    part: type[Dataset]
    options: PartOptions
    samples: int = 4

    def build(self, options: PartOptions | None = None) -> Dataset:
        """Build it as the core does."""
        kind: Any = self.part
        built: Dataset = kind(self.options if options is None else options)
        return built

    @cached_property
    def dataset(self) -> Dataset:
        """One of them, that is used again and again."""
        return self.build()

    @cached_property
    def chosen(self) -> Sequence[int]:
        """Samples that are opened, evenly spaced."""
        return list(evenly(len(self.dataset), self.samples))

    def sources(self) -> Iterator[tuple[int, Source]]:
        """Open them."""
        for index in self.chosen:
            yield index, self.dataset.open(index)


def some_frames(source: Source) -> list[int]:
    """Return a sample's first, middle and last frame."""
    frames = source.info.frames
    return sorted({0, frames // 2, frames - 1})


def read_samples(dataset: Dataset, indices: Sequence[int]) -> list[tuple[str, np.ndarray]]:
    """Open samples by index and read some frames of each, with their names."""
    sources = [dataset.open(index) for index in indices]
    return [(source.info.id, np.array(source.read(some_frames(source)))) for source in sources]


@dataset_promises()
def options_survive_a_recipe(trial: DatasetTrial) -> None:
    """Options are written into recipes as JSON, and come back the same."""
    check_recipe(trial.options)


@dataset_promises()
def is_built_from_options_alone(trial: DatasetTrial) -> None:
    """It is built as ``Class(options)``."""
    assert isinstance(trial.build(), Dataset), "does not inherit from maekit.contracts.Dataset"


@dataset_promises("is_built_from_options_alone")
def members_are_spelled_as_the_contract_spells_them(trial: DatasetTrial) -> None:
    """No attribute looks like a misspelled member, which would never be called."""
    check_names(trial.dataset, Dataset)


@dataset_promises("is_built_from_options_alone")
def holds_a_sample(trial: DatasetTrial) -> None:
    """It is not empty: what it cannot find it refuses with DataError."""
    assert len(trial.dataset) > 0, "is empty"


@dataset_promises("holds_a_sample")
def opens_every_sample(trial: DatasetTrial) -> None:
    """Samples from 0 to its length are opened, and read, first and last frame."""
    for index, source in trial.sources():
        assert isinstance(source, Source), f"sample {index} is no maekit.contracts.Source"
        assert source.info.frames > 0, f"sample {index} has {source.info.frames} frames"
        source.read(some_frames(source))


@dataset_promises("opens_every_sample")
def names_a_sample_as_it_opens_it(trial: DatasetTrial) -> None:
    """``name(i)`` is what the opened sample is called, and no two samples share one."""
    for index, source in trial.sources():
        name = trial.dataset.name(index)
        assert isinstance(name, str), f"sample {index} is named by a {type(name).__name__}"
        assert name, f"sample {index} has no name"
        said = f"name({index}) is {name!r}, the opened sample's id {source.info.id!r}"
        assert source.info.id == name, said
    names = [trial.dataset.name(index) for index in trial.chosen]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"two samples are called {min(twice)!r}"


@dataset_promises("opens_every_sample")
def headers_are_true(trial: DatasetTrial) -> None:
    """What is read is ``[T, H, W, C]`` of the sizes and the dtype that ``info`` says."""
    for _, source in trial.sources():
        info, ids = source.info, some_frames(source)
        clip: object = source.read(ids)
        assert isinstance(clip, np.ndarray), f"{info.id}: reads {type(clip).__name__}, no array"
        shape = (len(ids), info.height, info.width, info.channels)
        assert clip.shape == shape, f"{info.id}: read {clip.shape}, the header says {shape}"
        assert str(clip.dtype) == info.dtype, f"{info.id}: read {clip.dtype}, said {info.dtype}"
        assert info.dtype in DTYPES, f"{info.id}: dtype {info.dtype}, not one of {DTYPES}"


@dataset_promises("headers_are_true")
def reads_the_same_each_time(trial: DatasetTrial) -> None:
    """It owns no random state: a sample is the same whenever it is opened, and by whom."""
    for index, source in trial.sources():
        ids = some_frames(source)
        first = np.array(source.read(ids))
        further = [trial.dataset] * (_AGAIN if index == trial.chosen[0] else 0)
        for other in (trial.dataset, trial.build(), *further):
            again = other.open(index).read(ids)
            assert np.array_equal(first, again), f"{source.info.id}: two reads differ"


@dataset_promises("headers_are_true")
def leaves_global_generators_alone(trial: DatasetTrial) -> None:
    """It neither draws from nor reseeds Python's or numpy's global generator."""
    before = str(random.getstate()), str(np.random.get_state(legacy=False))  # noqa: NPY002
    dataset = trial.build()
    read_samples(dataset, trial.chosen)
    after = str(random.getstate()), str(np.random.get_state(legacy=False))  # noqa: NPY002
    assert before == after, "uses a global random generator"


@dataset_promises("reads_the_same_each_time")
def reads_frames_as_they_are_asked_for(trial: DatasetTrial) -> None:
    """Frames come in the order that is asked for, and as often."""
    for _, source in trial.sources():
        ids = some_frames(source)
        asked = [*reversed(ids), ids[0], ids[0]]
        one_by_one = np.concatenate([np.array(source.read([frame])) for frame in asked])
        clip = source.read(asked)
        said = f"{source.info.id}: read({asked})"
        assert clip.shape == one_by_one.shape, f"{said} gives {len(clip)} frames"
        same = np.array_equal(clip, one_by_one)
        assert same, f"{said} is not these frames in this order, one by one"


@dataset_promises("reads_the_same_each_time")
def keeps_what_it_hands_out_apart(trial: DatasetTrial) -> None:
    """Who writes into what was read changes no later read."""
    dataset = trial.build()  # as its cache is written into
    for index in trial.chosen:
        source = dataset.open(index)
        ids = some_frames(source)
        clip = source.read(ids)
        before = np.array(clip)
        if not clip.flags.writeable:
            continue
        clip[:] = clip.max() - clip
        for again in (source, dataset.open(index)):
            same = np.array_equal(again.read(ids), before)
            assert same, f"{source.info.id}: hands out its own memory, copy it or make it read-only"


@dataset_promises("reads_the_same_each_time")
def crops_where_it_says_so(trial: DatasetTrial) -> None:
    """With ``info.crops`` it reads the box that it is given, resized to the size."""
    told = [
        _cut_elsewhere(source, box, size)
        for _, source in trial.sources()
        if source.info.crops
        for box, size in _boxes(source.info.height, source.info.width)
    ]
    if not any(told):
        left = "its pictures look the same everywhere" if told else "it leaves cutting to the core"
        raise NotApplicableError(left)


def _cut_elsewhere(source: Source, box: _Box, size: _Size) -> bool:
    """Check one box, and tell whether the pictures can show that it is not another one.

    Whoever cuts while decoding may round otherwise, and resize by another filter: what is read must
    be half as far from the box as from any other, on smooth pictures as on noise.
    """
    info, ids = source.info, some_frames(source)
    whole = np.array(source.read(ids))
    clip = source.read(ids, box, size)
    said = f"{info.id}: read(ids, {box}, {size})"
    shape = (len(ids), *size, info.channels)
    assert clip.shape == shape, f"{said} is {clip.shape}, not {shape}"
    assert str(clip.dtype) == info.dtype, f"{said} is {clip.dtype}"
    asked = _cut(whole, box, size)
    away = _apart(clip, asked)
    level = 1.0 if whole.dtype.kind == "u" else 0.0  # to which pixels are rounded
    seen = max(_SEEN * float(np.ptp(whole.astype(np.float64))), 2 * level)
    different = False
    for name, other in _others(box, info.height, info.width):
        there = _cut(whole, other, size)
        if _apart(there, asked) <= seen:
            continue
        different = True
        near = _apart(clip, there)
        what = f"{said} is not that box: {away:.3g} away from it on average, {near:.3g} from {name}"
        assert 2 * away <= near, what
    return different


def _cut(clip: np.ndarray, box: _Box, size: _Size) -> np.ndarray:
    return np.stack([crop_resize(each, Box(*box), size, "crop", "bicubic") for each in clip])


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).mean())


def _boxes(height: int, width: int) -> Iterator[tuple[_Box, _Size]]:
    """Yield a corner as it is, the opposite one at half its size, and a box near the lower left."""
    rows, columns = max(1, height // 2), max(1, width // 2)
    yield (0, 0, rows, columns), (rows, columns)
    yield (height - rows, width - columns, rows, columns), (max(1, rows // 2), max(1, columns // 2))
    yield (height - rows, 0, rows, columns), (rows, columns)


def _others(box: _Box, height: int, width: int) -> Iterator[tuple[str, _Box]]:
    """Yield boxes that may be mistaken for one, each with its name."""
    top, left, rows, columns = box
    far = height - rows, width - columns
    yield "the middle", (far[0] // 2, far[1] // 2, rows, columns)
    yield "the whole picture", (0, 0, height, width)
    for name, corner in {
        "the upper left": (0, 0),
        "the upper right": (0, far[1]),
        "the lower left": (far[0], 0),
        "the lower right": far,
    }.items():
        if corner != (top, left):
            yield name, (*corner, rows, columns)


@dataset_promises("opens_every_sample")
def labels_are_those_of_the_samples(trial: DatasetTrial) -> None:
    """``labels`` holds what the opened samples say, one for each."""
    labels = trial.dataset.labels
    if labels is None:
        left = "labels are learned by opening samples"
        raise NotApplicableError(left)
    many, samples = len(labels), len(trial.dataset)
    assert many == samples, f"{many} labels of {samples} samples"
    for index, source in trial.sources():
        said = f"{source.info.id}: labels says {labels[index]!r}, opened {source.info.label!r}"
        assert _equal(labels[index], source.info.label), said


def _equal(one: object, other: object) -> bool:
    if one is None or other is None:
        return one is other
    if isinstance(one, (int, np.integer, np.ndarray)):
        return bool(np.array_equal(np.asarray(one), np.asarray(other)))
    return bool(one == other) or str(one) == str(other)  # boxes hold arrays


@dataset_promises("opens_every_sample")
def labels_are_among_its_classes(trial: DatasetTrial) -> None:
    """Whole numbers are places in ``classes``."""
    classes = trial.dataset.classes
    if classes is None:
        left = "it has no classes"
        raise NotApplicableError(left)
    assert len(set(classes)) == len(classes), "two classes have one name"
    for _, source in trial.sources():
        label = source.info.label
        if isinstance(label, (int, np.integer)):
            inside = 0 <= label < len(classes)
            assert inside, f"{source.info.id}: label {label} of {len(classes)} classes"


@dataset_promises("opens_every_sample")
def refuses_a_sample_that_is_not_there(trial: DatasetTrial) -> None:
    """Beyond its length there is nothing: no other sample is given instead."""
    beyond = len(trial.dataset)
    try:
        source = trial.dataset.open(beyond)
        source.read([0])
    except Exception:  # noqa: BLE001 - whatever says no
        return
    what = f"open({beyond}) of {beyond} samples gives {source.info.id}: another sample in its place"
    raise AssertionError(what)


@dataset_promises("reads_the_same_each_time")
def never_puts_another_sample_in_its_place(trial: DatasetTrial) -> None:
    """Where a sample's file cannot be read it raises, and gives no other sample."""
    dataset = trial.build()
    for index in trial.chosen:
        source = trial.dataset.open(index)
        ids = some_frames(source)
        before = np.array(source.read(ids))
        clip = None  # an error is what is wanted
        with _unreadable() as tried, suppress(Exception):
            clip = dataset.open(index).read(ids)
        if tried and clip is not None and not np.array_equal(clip, before):
            what = f"{source.info.id}: its file cannot be opened, and other pixels are given"
            raise AssertionError(what)
    clips = read_samples(trial.dataset, trial.chosen)
    # Two may well be equal, and so may black pictures; not all that are looked at.
    same = {(clip.shape, clip.tobytes()) for _, clip in clips}
    varied = any(bool(np.ptp(clip)) for _, clip in clips)
    what = ", ".join(name for name, _ in clips)
    assert len(clips) < 3 or len(same) > 1 or not varied, f"{what} are all the same pixels"


@contextmanager
def _unreadable() -> Iterator[list[str]]:
    """Let every file fail to open that a set opens through Python."""
    tried: list[str] = []

    def fail(file: object, *args: object, **kwargs: object) -> None:  # noqa: ARG001
        tried.append(str(file))
        msg = f"cannot be read: {file}"
        raise OSError(msg)

    replaced: Callable[..., Any] = fail
    with mock.patch.object(builtins, "open", replaced), mock.patch.object(io, "open", replaced):
        yield tried


@dataset_promises("opens_every_sample")
def every_option_is_read(trial: DatasetTrial) -> None:
    """No option is there without being looked at."""
    options, read = watched(trial.options)
    read_samples(trial.build(options), trial.chosen[:1])
    dead = unread(trial.part, options, read)
    assert not dead, f"nothing ever reads {', '.join(dead)}"


@dataset_promises("reads_the_same_each_time", "options_survive_a_recipe")
def is_the_same_from_a_resolved_recipe(trial: DatasetTrial) -> None:
    """Built from the options that a run folder holds it has the same samples."""
    again = trial.build(resolved(trial.options))
    assert len(again) == len(trial.dataset), "has another length"
    _same(read_samples(again, trial.chosen), trial, "has other samples")


def _same(found: list[tuple[str, np.ndarray]], trial: DatasetTrial, what: str) -> None:
    own = read_samples(trial.dataset, trial.chosen[: len(found)])
    for (name, clip), (other, pixels) in zip(own, found, strict=True):
        assert name == other, f"{what}: {other} in place of {name}"
        assert np.array_equal(clip, pixels), f"{what}: {name} differs"


@dataset_promises("opens_every_sample")
def can_be_sent_to_loader_workers(trial: DatasetTrial) -> None:
    """It can be pickled, also after samples were read."""
    dataset = trial.build()
    try:
        pickle.dumps(dataset)
        if len(dataset):
            read_samples(dataset, [0])
        pickle.loads(pickle.dumps(dataset))  # noqa: S301 (its own bytes)
    except Exception as error:
        what = f"cannot be pickled: {type(error).__name__}: {error}"
        raise AssertionError(what) from error


@dataset_promises("reads_the_same_each_time", "can_be_sent_to_loader_workers")
def reads_the_same_in_a_worker_without_torch(trial: DatasetTrial) -> None:
    """In another process it reads the same samples, and imports no torch there."""
    found, heavy = in_worker(read_samples, trial.build(), trial.chosen[:2])
    assert not heavy, f"imports {heavy[0]}, which a loader worker has no room for"
    _same(found, trial, "in a worker it reads something else")


@dataset_promises("opens_every_sample")
def says_where_samples_come_from(trial: DatasetTrial) -> None:
    """``sources`` names one origin for each sample."""
    for by in ("sample", "folder"):
        found = trial.dataset.sources(by)
        samples = len(trial.dataset)
        assert len(found) == samples, f"sources({by!r}) gives {len(found)} for {samples} samples"
