"""Masker ``motion``: what moves is hidden more often than what stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from maekit.contracts import Grid, Masker, PartError, PartOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FULL = {"uint8": 255.0, "uint16": 65535.0}  # the largest value; of floats it is 1


class Motion(Masker):
    """Draws hidden tokens without replacement, with odds that grow with their motion.

    A token's motion is the mean absolute difference of its frames to those before them. Its odds
    are ``(motion + floor) ** strength``: with a strength of 0 it is the masker ``random`` (or, with
    ``slots: same``, ``tube``); a strength without bound hides exactly what moves most.

    The number of hidden tokens does not depend on the pixels: ``int(ratio * n)`` of n, as VideoMAE
    rounds.
    """

    needs_pixels = True

    class Options(PartOptions):
        ratio: float = Field(0.75, gt=0, lt=1, description="hidden fraction of a time slot's h*w")
        strength: float = Field(
            1.0,
            ge=0,
            le=100,
            description="how much motion counts: 0 not at all, 1 odds in proportion to it",
        )
        floor: float = Field(
            0.02,
            gt=0,
            description="motion, of a range of 1, that what stands still is taken to have: noise "
            "below it hardly matters",
        )
        slots: Literal["each", "same"] = Field(
            "each",
            description="each: places are drawn for every time slot; same: one set of places for "
            "all slots, by the motion of the whole clip (tubes)",
        )

    def __init__(self, options: Options) -> None:
        self.options = options

    def count(self, grid: Grid) -> int:
        """Return the hidden tokens of all time slots together."""
        return grid.t * self._per_slot(grid)

    def __call__(
        self,
        grid: Grid,
        rng: np.random.Generator,
        *_: Any,  # noqa: ANN401 - the contract's signature
        pixels: np.ndarray,
        **__: Any,  # noqa: ANN401
    ) -> NDArray[np.bool_]:
        """Draw a mask, bool ``[t, h, w]``, True = hidden, for a crop ``[T, H, W, C]``."""
        options = self.options
        motion = token_motion(pixels, grid)
        if options.slots == "same":
            motion = motion.mean(axis=0, keepdims=True)
        odds = np.log(motion + options.floor) * options.strength
        # The largest of log(odds) + Gumbel noise are a draw without replacement (Efraimidis and
        # Spirakis, 2006).
        keys = (odds + rng.gumbel(size=odds.shape)).reshape(len(odds), -1)
        hidden = np.zeros(keys.shape, dtype=np.bool_)
        count = self._per_slot(grid)
        np.put_along_axis(hidden, np.argsort(-keys, axis=1, kind="stable")[:, :count], True, axis=1)
        mask = hidden.reshape(-1, grid.h, grid.w)
        return np.tile(mask, (grid.t // len(mask), 1, 1))

    def _per_slot(self, grid: Grid) -> int:
        return int(self.options.ratio * grid.h * grid.w)


def token_motion(pixels: np.ndarray, grid: Grid) -> NDArray[np.float32]:
    """Return the motion of each token, float32 ``[t, h, w]``, of a crop ``[T, H, W, C]``.

    The first frame has none before it, and takes the difference to the second.

    Raises:
        PartError: there is one frame only.
    """
    if len(pixels) < 2:
        msg = "one frame does not move"
        raise PartError(msg, hint="set data.train.frames to 2 or more, or take another masker")
    frames = pixels.astype(np.float32) / _FULL.get(str(pixels.dtype), 1.0)
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=-1)  # [T - 1, H, W]
    steps = np.concatenate([steps[:1], steps])
    t, h, w = (size // cells for size, cells in zip(steps.shape, grid, strict=True))
    cells = steps.reshape(grid.t, t, grid.h, h, grid.w, w)
    moved: NDArray[np.float32] = cells.mean(axis=(1, 3, 5))
    return moved
