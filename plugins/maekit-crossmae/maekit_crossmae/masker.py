"""Masker ``partial``: of what is hidden, an exact share is predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from maekit.contracts import Grid, Masker, PartError, PartOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Partial(Masker):
    """Chooses, as ``pretrain.decoder_masker``, which hidden tokens are predicted.

    A decoder of cross-attention alone predicts each token by itself, so that fewer of them cost
    less (CrossMAE, section 3.2). Every one that is chosen is hidden from the encoder.
    """

    needs_hidden = True

    class Options(PartOptions):
        share: float = Field(
            1 / 3,
            gt=0,
            le=1,
            description="of the hidden tokens, int(share * hidden) are predicted; a third of 75% "
            "hidden are the paper's 25% of all",
        )

    def __init__(self, options: Options) -> None:
        self.options = options

    def __call__(
        self,
        grid: Grid,
        rng: np.random.Generator,
        *_: Any,  # noqa: ANN401 - the contract's signature
        hidden: np.ndarray,
        **__: Any,  # noqa: ANN401
    ) -> NDArray[np.bool_]:
        """Draw what is predicted, bool ``[t, h, w]``, among what is hidden.

        Raises:
            PartError: the share of what is hidden is less than one token.
        """
        places = np.flatnonzero(hidden)
        count = int(self.options.share * len(places))
        if not count:
            msg = f"a share of {self.options.share:g} of {len(places)} hidden tokens is none"
            raise PartError(msg, hint="raise the share")
        chosen = np.zeros(grid.tokens, dtype=np.bool_)
        chosen[rng.permutation(places)[:count]] = True
        return chosen.reshape(grid)
