"""A further change of pixels, by dotted name: how loader workers come to use torch's libraries.

The function is made in the process that uses it, on first use, so that a reader that has one can be
sent to a worker, and workers of readers that have none never import what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from maekit.data.rng import seeded
from maekit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from maekit.data.order import Key

Frame = Callable[[np.ndarray], np.ndarray]
_CHANNELS = (1, 3)


@dataclass
class Transform:
    """A random change of one 8-bit frame ``[H, W, C]``, drawn once for all frames of a clip.

    Args:
        maker: ``module:function``, which makes the change of ``options``.
        on: ``crop``: the frames that are cut out, resized and flipped; ``frames``: whole ones.
        seed: the recipe's seed.
        purpose: keeps its randomness apart from others'.
    """

    maker: str
    options: Mapping[str, Any]
    on: Literal["crop", "frames"]
    seed: int
    purpose: str
    _made: Frame | None = field(default=None, init=False, repr=False)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_made": None}

    def make(self) -> Frame:
        """Return the change, made once in each process; what it needs is imported then."""
        if self._made is None:
            module, _, name = self.maker.partition(":")
            self._made = getattr(import_module(module), name)(**self.options)
        return self._made

    def __call__(
        self, frames: Sequence[np.ndarray], key: Key, repeat: int, where: str
    ) -> list[np.ndarray]:
        """Change every frame alike: each is under the same key.

        Args:
            frames: uint8 ``[H, W, C]`` each.
            key: of the sample.
            repeat: which of the sample's augmentations it is.
            where: the sample, for errors.

        Raises:
            DataError: the pixels are not 8-bit ones of 1 or 3 channels.
        """
        first = frames[0]
        if first.dtype != np.uint8 or first.shape[-1] not in _CHANNELS:
            what = f"has {first.shape[-1]} channels of {first.dtype}, and rand_augment is for 8-bit"
            hint = "set finetune.rand_augment to null"
            raise DataError(f"{what} pixels of 1 or 3", where=where, hint=hint)
        change = self.make()
        changed = []
        for frame in frames:
            with seeded(
                self.seed,
                purpose=self.purpose,
                epoch=key.epoch,
                index=key.index,
                repeat=repeat,
            ):
                changed.append(change(frame))
        return changed
