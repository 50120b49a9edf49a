"""Features of whole clips: nothing hidden, nothing random, whatever the batch.

B clips, C channels, T frames, H x W pixels; N patch tokens; D the width of a feature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from maekit.data.loader import Loader
from maekit.engine.step import to_unit
from maekit.errors import RecipeError
from maekit.evaluate.multiview import batches_of, refuse_bad
from maekit.tokens import Mask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from maekit.data.batch import BadFile, Batch
    from maekit.data.order import Key
    from maekit.engine.precision import Precision
    from maekit.evaluate.views import ViewReader
    from maekit.model import MaskedAutoencoder

Pool = Literal["cls", "mean", "tokens"]
Featurise = Callable[[Tensor], Tensor]  # float32 pixels in [0, 1], [B, C, T, H, W]; to [B, ...]


class Features(nn.Module):
    """Pixels in [0, 1] to features of an encoder that sees all of them.

    ``cls`` is the class token, ``mean`` the mean over patch tokens, ``tokens`` all patch tokens in
    raster order, ``[B, N, D]``; other prefix tokens are left out.

    Args:
        model: its encoder is used, in evaluation mode.
        pool: what becomes of the tokens.
        layer: the block whose output is taken, from 1, or from -1 backwards; None: the encoder's
            output, after its last norm.

    Raises:
        RecipeError: the encoder has no class token, or not so many blocks.
    """

    def __init__(
        self, model: MaskedAutoencoder, pool: Pool, layer: int | None, precision: Precision
    ) -> None:
        super().__init__()
        if pool == "cls" and not model.backbone.prefix_tokens:
            msg = "this encoder has no class token (VideoMAE's has none)"
            raise RecipeError(msg, where="pool cls", hint="pool mean")
        self.model = model.eval()
        self.pool = pool
        self.block = None if layer is None else block_of(layer, len(model.backbone.blocks()))
        self.precision = precision

    @property
    def width(self) -> int:
        """D."""
        return self.model.backbone.width

    @torch.inference_mode()
    def forward(self, pixels: Tensor) -> Tensor:
        """``[B, C, T, H, W]`` to float32 ``[B, D]``, or ``[B, N, D]``."""
        model = self.model
        mask = Mask.nothing_hidden(len(pixels), model.grid.tokens, pixels.device)
        layers = () if self.block is None else (self.block,)
        with self.precision.autocast():
            encoded = model.encode_visible(model.normalise(pixels), mask, layers)
        tokens = (encoded.tokens if self.block is None else encoded.layers[0]).float()
        if self.pool == "cls":
            return tokens[:, 0]
        patches = tokens[:, model.backbone.prefix_tokens :]
        return patches if self.pool == "tokens" else patches.mean(dim=1)


def block_of(layer: int, blocks: int) -> int:
    """The index of a block that is counted from 1, or from -1 backwards.

    Raises:
        RecipeError: there is no such block.
    """
    if layer == 0 or abs(layer) > blocks:
        msg = f"layer {layer}: the encoder has blocks 1 to {blocks} (or -{blocks} to -1)"
        raise RecipeError(msg, where="layer", hint="without it, features follow the last norm")
    return layer - 1 if layer > 0 else blocks + layer


def auto_pool(pool: Literal["auto", "cls", "mean"], prefix_tokens: int) -> Literal["cls", "mean"]:
    """``auto``: the class token where there is one, else the mean over patches."""
    if pool != "auto":
        return pool
    return "cls" if prefix_tokens else "mean"


class Ledger(Protocol):
    """Takes samples that cannot be read: ``BadFiles``, or a list of one's own."""

    def add(self, bad: Iterable[BadFile], step: int) -> None: ...


@dataclass(frozen=True)
class Collected:
    """The features of a set.

    Attributes:
        rows: int64 ``[n]``: places in the set, of what could be read.
        features: for each way of making them, float32 ``[n, V, ...]`` over V test views.
    """

    rows: np.ndarray
    features: dict[str, np.ndarray]


def collect(
    reader: ViewReader,
    ways: Mapping[str, Featurise],
    *,
    device: torch.device,
    batch: int,
    workers: int,
    timeout: float,
    ledger: Ledger | None = None,
    rows: Sequence[int] | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> Collected:
    """Read a set once, and make all kinds of features of it.

    Args:
        reader: reads its views.
        ways: to make features, by name.
        device: where pixels are put.
        batch: views at once.
        workers: loader processes.
        timeout: seconds that one sample may take.
        ledger: takes samples that cannot be read, which are then left out; None: they are fatal.
        rows: only these of the set, in this order; None: all.
        told: hears how many samples are done.

    Raises:
        DataError: a sample cannot be read, or too many cannot.
    """
    read_rows: list[int] = []
    found: dict[str, list[np.ndarray]] = {name: [] for name in ways}
    wanted = range(len(reader.dataset)) if rows is None else rows
    keys = batches_of(wanted, max(1, batch // reader.repeats))
    for read in _read(reader, keys, workers=workers, timeout=timeout):
        good = _good(read, ledger)
        pixels = to_unit(read.views[0], device)
        views = reader.repeats
        for name, way in ways.items():
            made = way(pixels).float().cpu().numpy()
            made = made.reshape(len(read.keys), views, *made.shape[1:])
            found[name].append(made[good])
        read_rows += [key.index for key, keep in zip(read.keys, good, strict=True) if keep]
        told(len(read_rows))
    return Collected(
        np.array(read_rows, np.int64),
        {name: np.concatenate(parts) for name, parts in found.items()},
    )


def _read(
    reader: ViewReader, keys: list[list[Key]], *, workers: int, timeout: float
) -> Iterator[Batch]:
    with Loader(reader, keys, workers=min(workers, len(keys)), timeout=timeout) as loader:
        yield from loader


def _good(read: Batch, ledger: Ledger | None) -> np.ndarray:
    """Bool ``[B]``: which samples of a batch could be read."""
    if ledger is None:
        refuse_bad(read)
    else:
        ledger.add(read.bad, 0)
    bad = {file.index for file in read.bad}
    return np.array([key.index not in bad for key in read.keys])
