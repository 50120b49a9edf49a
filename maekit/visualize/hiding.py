"""What reconstructions hide: a masker's draw, one training step's, or a picture of one's own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from maekit import registry
from maekit.data.files import read_bytes
from maekit.data.masks import MaskDraw
from maekit.data.pixels import to_channels, to_unit
from maekit.data.read_image import open_image
from maekit.data.seeded import generator
from maekit.errors import DataError, RecipeError

if TYPE_CHECKING:
    from maekit.data.order import Stream
    from maekit.data.plan import Box
    from maekit.data.reader import SampleReader
    from maekit.grid import Grid
    from maekit.recipe.schema import MaskerSpec

_WHITE = 0.5  # from here on a token of a mask's picture is hidden


@dataclass(frozen=True)
class Subject:
    """What a mask is drawn for.

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
class Pass:
    """One look of the model; two of bool ``[N]``."""

    hidden: np.ndarray  # not seen by the encoder
    asked: np.ndarray  # predicted; a part of what is hidden


@dataclass(frozen=True)
class Hiding:
    """A mask with its name, or with several passes masks that together hide everything."""

    label: str
    passes: tuple[Pass, ...]


class Masks(Protocol):
    """Draws masks for one input at a model's grid."""

    def draw(self, subject: Subject, grid: Grid, unit: tuple[int, int, int]) -> list[Hiding]:
        """One row of the sheet for each mask."""
        ...


class Drawn:
    """A masker's draws, keyed by the seed and the file's name.

    Args:
        specs: one row of the sheet for each.
        seed: the same seed, the same masks.
        whole: predict every token once: see ``complementary``.

    Raises:
        PartError, RecipeError: there is no such masker, or not with these options.
    """

    def __init__(self, specs: Sequence[MaskerSpec], seed: int, *, whole: bool = False) -> None:
        # Made first: that is what checks the options of which the label speaks.
        self.maskers = [(registry.build(spec), _label(spec)) for spec in specs]
        self.seed = seed
        self.whole = whole

    def check(self, grid: Grid, unit: tuple[int, int, int]) -> None:
        """See to it that every masker hides something, but not all, of a grid.

        Raises:
            PartError: one does not. One that is shown the pixels is not tried.
        """
        for masker, _ in self.maskers:
            if not masker.needs_pixels:
                MaskDraw(masker, grid, unit, (0, 0, 0, 0))

    def draw(self, subject: Subject, grid: Grid, unit: tuple[int, int, int]) -> list[Hiding]:
        """Masks by each of the maskers."""
        rows = []
        clip = subject.pixels.shape
        name = subject.name.rpartition("/")[2].encode()
        key = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")
        for masker, label in self.maskers:
            masks = MaskDraw(masker, grid, unit, (clip[0], clip[1], clip[2], clip[3]))
            rng = generator(self.seed, purpose="reconstruct/mask", index=key)
            hidden = masks.draw(rng, subject.pixels)
            passes = complementary(hidden, grid, unit, rng) if self.whole else [_one(hidden)]
            rows.append(Hiding(label, tuple(passes)))
        return rows


def complementary(
    hidden: np.ndarray, grid: Grid, unit: tuple[int, int, int], rng: np.random.Generator
) -> list[Pass]:
    """As few masks as possible that each hide as many tokens as a given one, and together all.

    Every token is asked for in exactly one pass. What is the same in all time slots of the given
    mask (tubes) stays so, and what is the same in all of a slot (frames); beyond that tokens are
    chosen at random, whatever the masker's shapes.

    Args:
        hidden: bool ``[N]``, some True, not all.
        unit: tokens per maskable unit.
    """
    units = hidden.reshape(grid)[:: unit[0], :: unit[1], :: unit[2]]
    cells = units
    if (units == units[:1]).all():
        cells = units[:1]
    elif (units == units[:, :1, :1]).all():
        cells = units[:, :1, :1]
    count = int(cells.sum())
    order = rng.permutation(cells.size)
    passes = []
    for asked in np.array_split(order, -(-cells.size // count)):
        others = rng.permutation(np.setdiff1d(order, asked))
        chosen = np.concatenate([asked, others[: count - len(asked)]])
        passes.append(
            Pass(*(_tokens(each, cells.shape, units.shape, unit) for each in (chosen, asked)))
        )
    return passes


def _tokens(
    cells: np.ndarray, shape: tuple[int, ...], units: tuple[int, ...], unit: tuple[int, int, int]
) -> np.ndarray:
    """Numbers of cells as a map of tokens, bool ``[N]``."""
    chosen = np.zeros(shape, np.bool_)
    chosen.flat[cells] = True
    tokens = np.broadcast_to(chosen, units)
    for axis, times in enumerate(unit):
        tokens = tokens.repeat(times, axis=axis)
    return tokens.reshape(-1)


@dataclass(frozen=True)
class LikeTraining:
    """The masks of one training step; input i gets those of its sample i, around and around.

    Args:
        reader: draws as the run's own.
        stream: the run's.
        step: counted from 1, as in its log.
    """

    reader: SampleReader
    stream: Stream
    step: int

    def draw(
        self,
        subject: Subject,
        grid: Grid,  # noqa: ARG002 - the reader has the run's
        unit: tuple[int, int, int],  # noqa: ARG002
    ) -> list[Hiding]:
        """The mask of one sample and repeat."""
        keys, repeats = self.stream.keys(self.step - 1), self.reader.repeats
        sample, repeat = divmod(subject.number % (len(keys) * repeats), repeats)
        crops = np.broadcast_to(subject.pixels, (repeats, *subject.pixels.shape))
        hidden, decode = self.reader.masks(keys[sample], crops)
        if hidden is None:
            what = "this run's reader draws no masks"
            raise ValueError(what)
        asked = hidden[repeat] if decode is None else hidden[repeat] & decode[repeat]
        label = f"as sample {sample + 1} of training step {self.step}"
        return [Hiding(label, (Pass(hidden[repeat], asked),))]


class FromPicture:
    """A black and white picture of any size: a token that is white by half or more is hidden.

    One that is as large as the input is cut as the input is; any other is stretched over the
    model's view. All time slots are hidden alike.

    Raises:
        RecipeError: there is no such file, or it hides nothing or everything.
        DataError: it is no picture.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            msg = "no such file"
            raise RecipeError(msg, where=f"--mask {path}", hint="a picture, white where to hide")
        try:
            pixels = open_image(read_bytes(str(path)), str(path)).decode()
            self._white = to_unit(to_channels(pixels, 1, str(path)))[..., 0]
        except DataError as error:
            hint = "a picture, white where to hide"
            raise DataError(error.what, where=f"--mask {path}", hint=hint) from error
        self._label = f"mask {path.name}"
        if self._white.max() < _WHITE or self._white.min() >= _WHITE:
            raise self._useless(RecipeError, everything=bool(self._white.max() >= _WHITE))

    def draw(self, subject: Subject, grid: Grid, unit: tuple[int, int, int]) -> list[Hiding]:
        """The one mask."""
        units = grid.over(unit)
        height, width = self._white.shape
        area = (0.0, 0.0, float(width), float(height))
        cut = (height, width) == subject.size
        if cut:
            top, left, down, across = subject.box
            area = (left, top, min(left + across, width), min(top + down, height))
        white = Image.fromarray(self._white.astype(np.float32)).resize(
            (units.w, units.h), Image.Resampling.BOX, box=area
        )
        cells = np.broadcast_to(np.asarray(white) >= _WHITE, units)
        if cells.all() or not cells.any():
            # Stretched, it is of no use for any input; cut, only for this one.
            raise self._useless(DataError if cut else RecipeError, everything=bool(cells.all()))
        hidden = _tokens(np.flatnonzero(cells), units, units, unit)
        return [Hiding(self._label, (_one(hidden),))]

    def _useless(
        self, kind: type[DataError | RecipeError], *, everything: bool
    ) -> DataError | RecipeError:
        what = "everything" if everything else "nothing"
        msg = f"{self._label} hides {what}: white is hidden, a token if it is white by half or more"
        return kind(msg, where="--mask", hint="paint some tokens white, and leave some black")


def _one(hidden: np.ndarray) -> Pass:
    return Pass(hidden, hidden)


def _label(spec: MaskerSpec) -> str:
    ratio = getattr(spec.options, "ratio", None)
    return spec.name if ratio is None else f"{spec.name} {float(ratio):g}"
