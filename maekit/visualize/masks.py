"""What ``reconstruct`` hides: a masker's draw, a training step's masks, or a given picture."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from PIL import Image

from maekit import registry
from maekit.data.files import read_bytes
from maekit.data.images import open_image
from maekit.data.masks import MaskDraw
from maekit.data.pixels import to_channels, to_float01
from maekit.data.rng import generator
from maekit.datasets.named_files import NamedFiles
from maekit.engine.batches import open_sets, stream_of, train_reader, with_range
from maekit.engine.build import required_pretrain
from maekit.engine.schedule import BatchSplit, total_steps
from maekit.errors import DataError, RecipeError
from maekit.weights.checkpoints import newest_good

if TYPE_CHECKING:
    from maekit.data.order import Stream
    from maekit.data.plan import Box
    from maekit.data.reader import SampleReader
    from maekit.grid import Grid
    from maekit.model import MaskedAutoencoder
    from maekit.recipe.schema import MaskerSpec, Recipe

_WHITE = 0.5  # from here on a token of a mask's picture is hidden


@dataclass(frozen=True)
class MaskInput:
    """An input for which a mask is drawn.

    Attributes:
        name: the file; the draw is keyed by its last part, so that it depends on no other input.
        number: its place among the inputs.
        pixels: the model's own view, ``[T, H, W, C]``.
        box: what was cut out of the upright source.
        size: height and width of that source.
    """

    name: str
    number: int
    pixels: np.ndarray
    box: Box
    size: tuple[int, int]


@dataclass(frozen=True)
class ForwardPass:
    """The tokens of one forward pass, two of bool ``[N]``."""

    hidden: np.ndarray  # not seen by the encoder
    predicted: np.ndarray  # a part of what is hidden


@dataclass(frozen=True)
class MaskRow:
    """One row of the sheet: a mask, or several that together hide everything, and its label."""

    label: str
    passes: tuple[ForwardPass, ...]


class MaskSource(Protocol):
    """Draws masks for one input at a model's grid."""

    def draw(self, item: MaskInput, grid: Grid, unit: tuple[int, int, int]) -> list[MaskRow]:
        """Draw the masks of an input, one row of the sheet each."""
        ...


class MaskerMasks:
    """Draws of maskers, keyed by the seed and the file's name.

    Args:
        specs: one row of the sheet for each.
        seed: the same seed, the same masks.
        whole: predict every token once: see ``complementary``.

    Raises:
        PartError, RecipeError: there is no such masker, or not with these options.
    """

    def __init__(self, specs: Sequence[MaskerSpec], seed: int, *, whole: bool = False) -> None:
        # Built before labeled: building checks the options that the label shows.
        self.maskers = [(registry.build(spec), _label(spec)) for spec in specs]
        self.seed = seed
        self.whole = whole

    def check(self, grid: Grid, unit: tuple[int, int, int]) -> None:
        """Check that every masker hides something, but not all, of a grid.

        Raises:
            PartError: one does not. Maskers that need the pixels are not tried.
        """
        for masker, _ in self.maskers:
            if not masker.needs_pixels:
                MaskDraw(masker, grid, unit, (0, 0, 0, 0))

    def draw(self, item: MaskInput, grid: Grid, unit: tuple[int, int, int]) -> list[MaskRow]:
        """Draw a mask by each of the maskers."""
        rows = []
        clip = item.pixels.shape
        name = item.name.rpartition("/")[2].encode()
        key = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")
        for masker, label in self.maskers:
            masks = MaskDraw(masker, grid, unit, (clip[0], clip[1], clip[2], clip[3]))
            rng = generator(self.seed, purpose="reconstruct/mask", index=key)
            hidden = masks.draw(rng, item.pixels)
            passes = complementary(hidden, grid, unit, rng) if self.whole else [_one(hidden)]
            rows.append(MaskRow(label, tuple(passes)))
        return rows


def complementary(
    hidden: np.ndarray, grid: Grid, unit: tuple[int, int, int], rng: np.random.Generator
) -> list[ForwardPass]:
    """Make as few masks as possible that each hide as many tokens as a given one, and together all.

    Every token is predicted in exactly one pass. A mask that is the same in all time slots (tubes)
    stays so, and one that is the same in all of a slot (frames); beyond that tokens are chosen at
    random, whatever the masker's shapes.

    Args:
        hidden: bool ``[N]``, some True, not all.
        grid: tokens along time, height and width.
        unit: tokens per maskable unit.
        rng: chooses the tokens of each pass.
    """
    units = hidden.reshape(grid)[:: unit[0], :: unit[1], :: unit[2]]
    # Tubes and frames must stay what they are: a model of tubes that sees a patch in one slot could
    # copy it to the others, and its prediction would look better than any that it was trained for.
    # So the units that are chosen from, the cells, are whole tubes or whole frames.
    cells = units
    if (units == units[:1]).all():
        cells = units[:1]
    elif (units == units[:, :1, :1]).all():
        cells = units[:, :1, :1]
    # As many are hidden in each pass as in the given mask, so that the model sees as much as it was
    # trained with. The cells are dealt out, each to the one pass that predicts it; as a rule their
    # number is not a multiple of `count`, and a pass also hides others, which it does not predict:
    # another pass does, and a patch that was painted twice would need a rule which of them counts.
    count = int(cells.sum())
    order = rng.permutation(cells.size)
    passes = []
    for dealt in np.array_split(order, -(-cells.size // count)):
        others = rng.permutation(np.setdiff1d(order, dealt))
        chosen = np.concatenate([dealt, others[: count - len(dealt)]])
        hides, predicts = (
            _tokens(each, cells.shape, units.shape, unit) for each in (chosen, dealt)
        )
        passes.append(ForwardPass(hides, predicts))
    return passes


def _tokens(
    cells: np.ndarray, shape: tuple[int, ...], units: tuple[int, ...], unit: tuple[int, int, int]
) -> np.ndarray:
    """Turn numbers of cells of a shape into a map of tokens, bool ``[N]``."""
    chosen = np.zeros(shape, np.bool_)
    chosen.flat[cells] = True
    tokens = np.broadcast_to(chosen, units)
    for axis, times in enumerate(unit):
        tokens = tokens.repeat(times, axis=axis)
    return tokens.reshape(-1)


@dataclass(frozen=True)
class TrainingStepMasks:
    """The masks of one training step: input i gets those of sample i, and so on in a circle.

    Args:
        reader: draws as the run's own.
        stream: the run's.
        step: counted from 1, as in its log.
    """

    reader: SampleReader
    stream: Stream
    step: int

    @classmethod
    def of_run(cls, folder: Path, recipe: Recipe, model: MaskedAutoencoder, step: int) -> Self:
        """Draw with the reader and the stream of a run.

        Raises:
            RecipeError: the run has no such step.
            DataError: no checkpoint says how many samples it trains on, and the data is not there.
        """
        section = required_pretrain(recipe)
        samples = _training_samples(folder, recipe)
        batch = BatchSplit.of(section.batch, samples=samples).effective
        stream = stream_of(recipe, samples, batch)
        steps = total_steps(
            epochs=section.epochs,
            steps=section.steps,
            samples=section.samples,
            batch=batch,
            per_epoch=stream.steps_per_epoch,
        )
        if step > steps:
            msg = f"there is no training step {step}: the run has {steps:,}"
            raise RecipeError(msg, where="--like-training", hint=f"a step from 1 to {steps}")
        return cls(train_reader(with_range(recipe, None), NamedFiles(()), model), stream, step)

    def draw(
        self,
        item: MaskInput,
        grid: Grid,  # noqa: ARG002 - the reader has the run's
        unit: tuple[int, int, int],  # noqa: ARG002
    ) -> list[MaskRow]:
        """Draw the mask of one sample and repeat."""
        keys, repeats = self.stream.keys(self.step - 1), self.reader.repeats
        sample, repeat = divmod(item.number % (len(keys) * repeats), repeats)
        crops = np.broadcast_to(item.pixels, (repeats, *item.pixels.shape))
        hidden, decode = self.reader.masks(keys[sample], crops)
        if hidden is None:
            what = "this run's reader draws no masks"
            raise ValueError(what)
        predicted = hidden[repeat] if decode is None else hidden[repeat] & decode[repeat]
        label = f"as sample {sample + 1} of training step {self.step}"
        return [MaskRow(label, (ForwardPass(hidden[repeat], predicted),))]


def _training_samples(folder: Path, recipe: Recipe) -> int:
    """Return how many samples a run trains on: as its newest checkpoint says, else counted."""
    checkpoint = newest_good(folder / "checkpoints", files=()).newest
    if checkpoint is not None and "train_samples" in checkpoint.record.extra:
        return int(checkpoint.record.extra["train_samples"])
    return len(open_sets(recipe, lambda _: None)[0])


class PictureMask:
    """A black and white picture of any size: a token is hidden if at least half of it is white.

    A picture as large as the input is cut as the input is; any other is stretched over the model's
    view. All time slots are hidden alike.

    Raises:
        RecipeError: there is no such file, or it hides nothing or everything.
        DataError: it is not a picture.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            msg = "no such file"
            raise RecipeError(msg, where=f"--mask {path}", hint="a picture, white where to hide")
        try:
            pixels = open_image(read_bytes(str(path)), str(path)).decode()
            self._white = to_float01(to_channels(pixels, 1, str(path)))[..., 0]
        except DataError as error:
            hint = "a picture, white where to hide"
            raise DataError(error.what, where=f"--mask {path}", hint=hint) from error
        self._label = f"mask {path.name}"
        if self._white.max() < _WHITE or self._white.min() >= _WHITE:
            raise self._useless(RecipeError, everything=bool(self._white.max() >= _WHITE))

    def draw(self, item: MaskInput, grid: Grid, unit: tuple[int, int, int]) -> list[MaskRow]:
        """Cut or stretch the picture to the model's view."""
        units = grid.over(unit)
        height, width = self._white.shape
        area = (0.0, 0.0, float(width), float(height))
        cut, picture = (height, width) == item.size, self._white
        if cut:
            top, left, down, across = item.box
            # A box that reaches beyond the input has padding there, which is not hidden.
            ends = ((-top, top + down - height), (-left, left + across - width))
            edges = [tuple(max(0, math.ceil(end)) for end in both) for both in ends]
            picture = np.pad(self._white, edges)
            top, left = top + edges[0][0], left + edges[1][0]
            bottom, right = min(top + down, picture.shape[0]), min(left + across, picture.shape[1])
            area = (left, top, right, bottom)
        white = Image.fromarray(picture.astype(np.float32)).resize(
            (units.w, units.h), Image.Resampling.BOX, box=area
        )
        cells = np.broadcast_to(np.asarray(white) >= _WHITE, units)
        if cells.all() or not cells.any():
            # A stretched picture is useless for every input, a cut one only for this one.
            raise self._useless(DataError if cut else RecipeError, everything=bool(cells.all()))
        hidden = _tokens(np.flatnonzero(cells), units, units, unit)
        return [MaskRow(self._label, (_one(hidden),))]

    def _useless(
        self, kind: type[DataError | RecipeError], *, everything: bool
    ) -> DataError | RecipeError:
        what = "everything" if everything else "nothing"
        msg = f"{self._label} hides {what}: a token is hidden if at least half of it is white"
        return kind(msg, where="--mask", hint="paint some tokens white, and leave some black")


def _one(hidden: np.ndarray) -> ForwardPass:
    return ForwardPass(hidden, hidden)


def _label(spec: MaskerSpec) -> str:
    ratio = getattr(spec.options, "ratio", None)
    return spec.name if ratio is None else f"{spec.name} {float(ratio):g}"
