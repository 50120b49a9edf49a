"""Draw masks sample by sample, and hold the masker to its contract.

Tokens are gathered by index into tensors of a fixed shape, so all masks of a run must hide the same
number. A masker of somebody else's that does not would fail far from here, in a worker or on the
device; so each mask is checked where it is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from maekit.errors import MaekitError, PartError
from maekit.origin import origin_of

if TYPE_CHECKING:
    from maekit.contracts import Grid, Masker
    from maekit.origin import Origin

# What is wrong with a masker of queries in the place of one that hides, and what to try.
HIDES_NOTHING = (
    "chooses what is predicted among what is hidden, and cannot hide anything itself",
    "name it in pretrain.decoder_masker, and another one in pretrain.masker",
)


class MaskDraw:
    """A masker at one grid: draws bool ``[N]`` in raster order, always with as many True.

    Args:
        masker: draws on units of tokens.
        grid: the backbone's grid of N tokens.
        unit: tokens per maskable unit, along t, h, w.
        clip: ``(T, H, W, C)`` of the crop that a content-aware masker gets.
        after: draws what is hidden; then True means to be predicted, of which there may be all.
            None: True means hidden, which some tokens must be, but not all.
        origin: of the masker, for errors.

    Raises:
        PartError: the masker does not keep its contract, or the grid does not divide into units.
    """

    def __init__(
        self,
        masker: Masker,
        grid: Grid,
        unit: tuple[int, int, int],
        clip: tuple[int, int, int, int],
        *,
        after: MaskDraw | None = None,
        origin: Origin | None = None,
    ) -> None:
        self._masker = masker
        self._grid = grid
        self._unit = unit
        self._origin = origin or origin_of(masker)
        try:
            self._units = grid.over(unit)
        except ValueError as error:
            raise PartError(str(error), where="model.backbone", hint="change data.size") from error
        hides = after is None
        if hides and masker.needs_hidden:
            raise self._fault(*HIDES_NOTHING)
        # Held to what it declares, or else to what it does the first time.
        self._count: int | None = None
        declared = masker.count(self._units)
        if declared is not None:
            self._count = int(declared)
        black = np.zeros(clip, dtype=np.uint8)
        hidden = None if after is None else after.draw(np.random.default_rng(0), black)
        first = self._draw(np.random.default_rng(0), black, hidden)
        count = int(first.sum())
        self._count = count
        if not np.array_equal(first, self._draw(np.random.default_rng(0), black, hidden)):
            what = "draws another mask of the same generator: no run of it could be resumed"
            raise self._fault(what, "draw from the generator that it is given, and nothing else")
        most = self._units.tokens - 1 if hides else self._units.tokens
        if not 1 <= count <= most:
            verb = "hides" if hides else "asks for"
            what = f"{verb} {count} of {self._units.tokens} at a grid of {self._units}"
            raise self._fault(what, "change its ratio, or data.size")

    @property
    def count(self) -> int:
        """How many of the N tokens are True in every mask."""
        per_unit = self._unit[0] * self._unit[1] * self._unit[2]
        return (self._count or 0) * per_unit

    def draw(
        self, rng: np.random.Generator, pixels: np.ndarray, hidden: np.ndarray | None = None
    ) -> np.ndarray:
        """Draw one mask, bool ``[N]``.

        Args:
            rng: the only source of randomness.
            pixels: the final crop ``[T, H, W, C]``.
            hidden: what is hidden from the encoder, bool ``[N]``, where this draws what is to be
                predicted.

        Raises:
            PartError: the masker fails, or returns something else than it must.
        """
        mask = self._draw(rng, pixels, hidden)
        for axis, times in enumerate(self._unit):
            mask = mask.repeat(times, axis=axis)
        return mask.reshape(-1)

    def _draw(
        self, rng: np.random.Generator, pixels: np.ndarray, hidden: np.ndarray | None
    ) -> np.ndarray:
        # The crop is training data too: a masker that writes into it must fail.
        more: dict[str, np.ndarray] = {}
        if self._masker.needs_pixels:
            more["pixels"] = read_only(pixels)
        if self._masker.needs_hidden and hidden is not None:
            step = tuple(slice(None, None, size) for size in self._unit)
            more["hidden"] = read_only(hidden.reshape(self._grid)[step])
        try:
            mask = self._masker(self._units, rng, **more)
        except PartError as error:
            named = error if self._origin is None else self._origin.named(error)
            raise named from error
        except MaekitError:
            raise
        except Exception as error:
            what = f"fails at a grid of {self._units}: {type(error).__name__}: {error}"
            raise self._fault(what) from error
        return self._checked(mask)

    def _fault(self, what: str, hint: str | None = None) -> PartError:
        if self._origin is None:  # of a masker that no recipe names
            return PartError(f"{type(self._masker).__name__} {what}", hint=hint)
        return self._origin.error(what, hint)

    def _checked(self, mask: object) -> np.ndarray:
        hint = "maekit.testing.check_masker shows what a masker has to keep"
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
            what = f"must return a bool array, returned {kind}"
            raise self._fault(what, hint)
        if mask.shape != tuple(self._units):
            what = f"must return the shape {tuple(self._units)}, returned {mask.shape}"
            raise self._fault(what, hint)
        if self._count is not None and int(mask.sum()) != self._count:
            what = f"must set {self._count} in every mask, set {int(mask.sum())}"
            raise self._fault(what, hint)
        return mask


def read_only(array: np.ndarray) -> np.ndarray:
    """Return an array of the same values that cannot be written into."""
    view = array.view()
    view.flags.writeable = False
    return view
