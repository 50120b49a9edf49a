"""Batches of a training: data sets, statistics, readers, loaders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from maekit import registry
from maekit.contracts import View
from maekit.data.loader import Loader
from maekit.data.order import Key, Order, Stream, evenly
from maekit.data.reader import SampleReader
from maekit.data.rendering import Rendering
from maekit.data.split import SHOWN, split_off
from maekit.data.stand_in import stand_ins
from maekit.data.statistics import auto_stats, cache_key, imagenet, keep, recall, samples_of
from maekit.data.value_range import values_of
from maekit.engine import distributed
from maekit.engine.build import required_pretrain
from maekit.engine.events import Emit, Note
from maekit.errors import DataError, RecipeError
from maekit.layers import Statistics
from maekit.origin import remember
from maekit.progress import counted
from maekit.ranks import cores
from maekit.recipe.schema import DataSpec, Recipe, Stats
from maekit.recipe.sections import NoAugment

if TYPE_CHECKING:
    from maekit.contracts import Dataset
    from maekit.data.bad_files import BadFiles
    from maekit.data.batch import Batch
    from maekit.data.value_range import Values
    from maekit.engine.left_out import SeenLeftOut
    from maekit.engine.schedule import BatchSplit
    from maekit.model import MaskedAutoencoder
    from maekit.recipe.sections import TrainingSection
    from maekit.weights.header import Header

MOST_WORKERS = 16
STAND_IN_CLASSES = 10  # of data that is stood in for, where the recipe does not say
_GLANCE = 32  # samples, where a range is only to be judged
_LITTLE = 0.25  # of a range: that less is used is told


def open_dataset(spec: DataSpec, key: str) -> Dataset:
    """Build a dataset part.

    Args:
        spec: the part and its options.
        key: of the recipe, which errors name.

    Raises:
        DataError: nothing is in it.
    """
    try:
        dataset: Dataset = distributed.once_a_node(lambda: registry.build(spec))
        remember(dataset, registry.origin_of_spec(spec))  # of a copy, too
    except DataError as error:
        # A dataset does not know which of the recipe's sets it is, nor where it is published.
        if error.where is None or not error.where.startswith("data."):
            raise
        published = None if spec.published is None else f"published at {spec.published}"
        hint = "; ".join(part for part in (error.hint, published) if part)
        raise DataError(error.what, where=f"{key}.path", hint=hint) from error
    if len(dataset) == 0:
        msg = f"the data set '{spec.name}' is empty"
        raise DataError(msg, where=key, hint=f"set {key}.path to a folder or list that is not")
    return dataset


def open_sets(recipe: Recipe, emit: Emit) -> tuple[Dataset, Dataset | None]:
    """Open data.train and data.val, which may be a share of it.

    Raises:
        DataError: nothing is in one of them, or nothing can be held out.
    """
    data = recipe.data
    head = None if recipe.finetune is None else recipe.finetune.head
    classes = None if head is None else head.classes
    boxes = head is not None and head.kind == "detection"
    instead = stand_ins(data, classes or STAND_IN_CLASSES, boxes=boxes)
    if instead is not None:
        emit(Note("noise stands in for the data: nothing of it is read"))
        return instead
    train: Dataset = open_dataset(data.train, "data.train")
    val: Dataset | None = None
    if data.val is not None and data.val.held_out is not None:
        wanted = data.val.held_out
        train, val, missing = split_off(train, wanted.split, wanted.by)
        emit(Note(f"data.val: {len(val):,} samples held out of data.train, by {wanted.by}"))
        if missing:
            names = ", ".join(missing[:SHOWN]) + (", ..." if missing[SHOWN:] else "")
            text = f"{len(missing)} classes have too few samples to hold one out: {names}"
            emit(Note(text, warning=True))
    elif data.val is not None:
        if _kind(data.val) != _kind(data.train):
            text = f"data.train is '{data.train.name}', and data.val is '{data.val.name}'"
            hint = "for a share of data.train: 'data.val={split: 0.1}'; for none: ~data.val"
            emit(Note(f"{text}: other samples than are trained on? {hint}", warning=True))
        val = open_dataset(data.val, "data.val")
    if len(train) == 1:
        text = "data.train is a single sample: all that can be learned is this one"
        emit(Note(text, warning=True))
    return train, val


def _kind(spec: DataSpec) -> str:
    return spec.name.rpartition("/")[2]


def statistics_of(recipe: Recipe, dataset: Dataset, device: str, emit: Emit) -> Statistics:
    """Mean and deviation that pixels are normalized with, computed once where it says auto.

    Raises:
        RecipeError: they are given for another number of channels.
    """
    stats, channels = recipe.data.stats, recipe.data.channels
    if stats == "auto":
        found = distributed.on_first(lambda: _own_statistics(recipe, dataset, device, emit))
    elif stats is None or stats == "imagenet":
        found = imagenet(channels)
    else:
        found = stats
    if len(found.mean) != channels:
        msg = f"statistics of {len(found.mean)} channels for data.channels {channels}"
        raise RecipeError(
            msg, where="data.stats", hint="give one mean and std per channel, or auto"
        )
    return Statistics(tuple(found.mean), tuple(found.std))


def _own_statistics(recipe: Recipe, dataset: Dataset, device: str, emit: Emit) -> Stats:
    """Return the set's own statistics: from the cache, else computed and kept there."""
    data = recipe.data
    size, channels = data.height_width, data.channels
    rendering = Rendering.of(data)
    key = cache_key(
        dataset,
        data.train,
        samples_of(dataset),
        size=size,
        channels=channels,
        rendering=rendering,
    )
    found = recall(key)
    if found is not None:
        return found
    found, notes = auto_stats(
        dataset,
        data.train,
        size=size,
        channels=channels,
        workers=workers_of(data.workers, device),
        timeout=data.timeout,
        rendering=rendering,
    )
    for note in notes:
        emit(Note(note, warning=True))
    if notes:
        return found  # not kept, so that the next run is told too
    try:
        keep(key, found)
    except OSError as error:
        emit(Note(f"data.stats is computed again next time, as it cannot be cached: {error}"))
    return found


def with_range(recipe: Recipe, span: tuple[float, float] | None) -> Recipe:
    """Return the recipe with another data.range; None: unset."""
    data = recipe.data.model_copy(update={"range_": span})
    return recipe.model_copy(update={"data": data})


def with_known_range(
    recipe: Recipe, dataset: Dataset, emit: Emit, weights: Header | None = None
) -> Recipe:
    """Return the recipe with its data.range in numbers, and say what they are.

    Args:
        recipe: of the verb.
        dataset: data.train.
        emit: called with notes.
        weights: those that the model starts from, which were trained on a range of their own: it is
            taken where the recipe has none, or auto. None: there are none.

    Raises:
        DataError: all values of the set are the same.
    """
    wanted = recipe.data.range_
    if isinstance(wanted, tuple):
        _announce_use(wanted, values_of(dataset, _GLANCE), emit)
        return recipe
    if weights is not None and weights.range is not None:
        low, high = weights.range
        emit(Note(f"data.range: {low:g} to {high:g}, as of the weights"))
        return with_range(recipe, weights.range)
    if wanted is None:
        values = values_of(dataset, _GLANCE, plain=1)
        if values.dtype == "uint16":
            _announce_use((0, 65535), values, emit)
        return recipe
    values = distributed.on_first(lambda: values_of(dataset))
    if values.dtype == "uint8":
        _announce_use((0, 255), values, emit)
        return with_range(recipe, None)
    if values.low == values.high:
        what = f"all pixels of {values.samples:,} samples are {values.low:g}"
        raise DataError(what, where="data.range", hint="is it the right set?")
    found = f"{values.low:g} to {values.high:g}, in {values.samples:,} samples looked at"
    emit(Note(f"data.range: auto is {found}"))
    return with_range(recipe, (values.low, values.high))


def _announce_use(span: tuple[float, float], values: Values, emit: Emit) -> None:
    """Say so where a set uses little of a range, or none of it."""
    if values.dtype == "uint8":
        emit(Note("data.range does nothing: all pixels looked at are 8-bit, which are 0 to 255"))
        return
    (low, high), (least, most) = span, (values.low, values.high)
    used = max(0.0, min(high, most) - max(low, least)) / (high - low)
    if used < _LITTLE:
        what = f"data.train: pixels from {least:g} to {most:g} in {values.samples:,} samples looked"
        text = f"{what} at use {used:.1%} of the range from {low:g} to {high:g}"
        emit(Note(f"{text}; data.range: auto makes all of it count", warning=True))


def train_reader(recipe: Recipe, dataset: Dataset, model: MaskedAutoencoder) -> SampleReader:
    """Build the reader of training samples and their masks.

    Raises:
        PartError: a masker does not fit the model's grid.
    """
    pretrain = required_pretrain(recipe)
    other = pretrain.decoder_masker
    return SampleReader(
        dataset,
        spec=recipe.data.train,
        augment=pretrain.augment,
        views=views_of(recipe, model),
        channels=recipe.data.channels,
        seed=recipe.seed,
        purpose="pretrain",
        masker=registry.build(pretrain.masker),
        decoder_masker=None if other is None else registry.build(other),
        grid=model.grid,
        mask_unit=model.backbone.mask_unit,
        repeats=pretrain.repeats,
        repeat_from=pretrain.repeat_from,
        rendering=Rendering.of(recipe.data),
    )


def holdout_reader(recipe: Recipe, dataset: Dataset, model: MaskedAutoencoder) -> SampleReader:
    """Build the reader of held-out samples: the center of each, and masks that never change."""
    pretrain = required_pretrain(recipe)
    return SampleReader(
        dataset,
        spec=recipe.data.val or recipe.data.train,
        augment=NoAugment(name="none", interpolation=pretrain.augment.interpolation),
        views=views_of(recipe, model),
        channels=recipe.data.channels,
        seed=recipe.seed,
        purpose="holdout",
        masker=registry.build(pretrain.masker),
        grid=model.grid,
        mask_unit=model.backbone.mask_unit,
        held_out=True,
        rendering=Rendering.of(recipe.data),
    )


def picture_reader(recipe: Recipe, verb: str, dataset: Dataset, *, held_out: bool) -> SampleReader:
    """Build a reader without masks: clips drawn as the verb's section says, or the center."""
    section: TrainingSection = getattr(recipe, verb)
    spec, augment = recipe.data.train, section.augment
    if held_out:
        spec = recipe.data.val or spec
        augment = NoAugment(name="none", interpolation=augment.interpolation)
    return SampleReader(
        dataset,
        spec=spec,
        augment=augment,
        views=(View("clip", recipe.data.height_width),),
        channels=recipe.data.channels,
        seed=recipe.seed,
        purpose="holdout" if held_out else verb,
        held_out=held_out,
        rendering=Rendering.of(recipe.data),
    )


def views_of(recipe: Recipe, model: MaskedAutoencoder) -> tuple[View, ...]:
    """Return the model's own clip, then the further views of the target."""
    more = () if model.target is None else tuple(model.target.views)
    return (View("clip", recipe.data.height_width), *more)


def stream_of(recipe: Recipe, samples: int, batch: int) -> Stream:
    """Return the keyed order of so many training samples, cut into effective batches."""
    order = Order(
        samples, recipe.seed, shuffle=recipe.data.shuffle, window=recipe.data.shuffle_window
    )
    return Stream(order, batch)


def workers_of(requested: int | Literal["auto"], device: str) -> int:
    """Return the number of loader processes.

    ``auto`` is one where a CPU trains, and one per core next to a GPU, at most 16.
    """
    if requested != "auto":
        return requested
    if device == "cpu":
        return 1
    return min(MOST_WORKERS, cores())


@dataclass
class TrainBatches:
    """The micro-batches of each update from a step on, bad files recorded as they pass."""

    reader: SampleReader
    stream: Stream
    split: BatchSplit
    bad_files: BadFiles
    start: int
    stop: int
    workers: int
    timeout: float
    left_out: SeenLeftOut

    def __enter__(self) -> Self:
        self._loader = Loader(self.reader, self._keys(), workers=self.workers, timeout=self.timeout)
        return self

    def __exit__(self, *error: object) -> None:
        self._loader.close()

    def _keys(self) -> Iterator[Sequence[Key]]:
        size, ranks = self.split.per_device, self.split.world
        for step in range(self.start, self.stop):
            keys = self.stream.keys(step)
            if ranks > 1:  # one after the other, as one process would accumulate them
                share = size * self.split.accumulation
                keys = keys[distributed.rank() * share :][:share]
            yield from (keys[first : first + size] for first in range(0, len(keys), size))

    def __iter__(self) -> Iterator[Sequence[Batch]]:
        """Yield lists of ``accumulation`` micro-batches.

        Raises:
            DataError: too many files are bad.
        """
        batches = iter(self._loader)
        for step in range(self.start, self.stop):
            update = [next(batches) for _ in range(self.split.accumulation)]
            found = [(each.bad, each.left_out) for each in update if each.bad or each.left_out]
            if self.split.world > 1:
                found = distributed.gather_if_any(found)
            for bad, left_out in found:
                self.bad_files.add(bad, step)
                self.left_out.add(left_out)
            yield update


def read_holdout(
    reader: SampleReader,
    samples: int,
    *,
    size: int,
    bad_files: BadFiles,
    workers: int,
    timeout: float,
    shared: bool,
) -> list[Batch]:
    """Read up to ``samples`` held-out samples, evenly spaced in the set, into memory.

    Args:
        reader: reads them.
        samples: how many at most.
        size: of a batch.
        bad_files: records those that cannot be read.
        workers: loader processes.
        timeout: seconds that one sample may take.
        shared: only this rank's batches; the others have theirs.

    Raises:
        DataError: too many files are bad.
    """
    keys = [Key(0, index) for index in evenly(len(reader.dataset), samples)]
    groups = [keys[first : first + size] for first in range(0, len(keys), size)]
    if shared:
        groups = distributed.share(groups)
    batches: list[Batch] = []
    with (
        counted("reading held-out samples", sum(map(len, groups)), "samples") as count,
        Loader(reader, groups, workers=min(workers, len(groups)), timeout=timeout) as loader,
    ):
        for batch in loader:
            batches.append(batch)
            count(len(batches) * size)
    bad = [each for batch in batches for each in batch.bad]
    bad_files.add(distributed.gather_if_any(bad) if shared else bad, 0)
    return batches


def announce_watch(workers: int, timeout: float, emit: Emit) -> None:
    """Say so where nothing ends reads that take too long."""
    if workers == 0:
        text = f"data.workers is 0: nothing ends a read that takes longer than the {timeout:g} s"
        emit(Note(f"{text} of data.timeout"))
