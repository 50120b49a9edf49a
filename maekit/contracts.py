"""What a part must offer: the whole API that a plugin author learns, on one page.

Shapes: B samples, C channels, T frames, H x W pixels; N = t*h*w patch tokens in raster order
(t, then h, then w), of which K are visible to the encoder and Q are to be predicted; D is a width.
A patch flattens to (pt, ph, pw, c), c fastest. **True = hidden** in every mask; masks never count
prefix (class, register) tokens.

A part is a class with a nested ``Options(PartOptions)``, declared under the entry-point group
``maekit.maskers``, ``.targets``, ``.backbones``, ``.decoders`` or ``.datasets``, and built as
``Class(options)``; a class whose constructor takes a second argument gets a ``PartContext`` there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from maekit.grid import Grid

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from maekit.tokens import Mask

__all__ = [
    "Backbone",
    "Dataset",
    "Decoder",
    "Encoded",
    "Grid",
    "Masker",
    "PartContext",
    "PartOptions",
    "Source",
    "Target",
    "View",
]


class PartOptions(BaseModel):
    """Base of every part's ``Options``: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # Options that may change when weights are loaded: no tensor depends on them, or it is resized.
    load_time: ClassVar[frozenset[str]] = frozenset()

    def structure(self) -> dict[str, Any]:
        """Return what weights depend on, as JSON values: all options but those of ``load_time``.

        Weights fit where it is equal. Where two options say the same (a size, and its width and
        depth), return one spelling of both.
        """
        return self.model_dump(mode="json", exclude=set(self.load_time))


@dataclass(frozen=True)
class PartContext:
    """What a part may know of the run that it is built for.

    The backbone is built first and sees only the first block; targets then see all but ``out_dim``,
    decoders everything.
    """

    shape: tuple[int, int, int]  # the model's own clip in pixels: (T, H, W)
    channels: int
    mean: tuple[float, ...]  # per channel, of the [0, 1] pixels
    std: tuple[float, ...]

    grid: Grid = field(default=Grid(0, 0, 0))
    patch: tuple[int, int, int] = (0, 0, 0)  # pixels per token: (pt, ph, pw)
    width: int = 0  # the encoder's D
    prefix_tokens: int = 0
    returns: Literal["visible", "all"] = "visible"
    mask_unit: tuple[int, int, int] = (1, 1, 1)
    out_dim: int = 0  # what the target asks the decoder for, per token


class View(NamedTuple):
    """A view of one sample that a target asks the loader for, cut with the same plan."""

    name: str
    size: tuple[int, int]  # height, width in pixels
    interpolation: Literal["bicubic", "bilinear"] | None = "bicubic"  # None: as the own clip
    frames: int | None = None  # over the same time; None: as many as the model's own clip


class Masker(Protocol):
    """Says which tokens of one sample are hidden: a pure function, no batch, no device.

    At one grid it hides the same number in every sample. It may declare that number as
    ``count(grid) -> int``. With ``needs_pixels = True`` it gets the final crop ``[T, H, W, C]``
    as a third argument.
    """

    def __call__(self, grid: Grid, rng: np.random.Generator) -> np.ndarray:
        """Return bool ``[t, h, w]``, True = hidden."""
        ...


class Source(Protocol):
    """One opened sample: what is known before its pixels are decoded.

    Attributes:
        frames: how many there are; 1 for an image.
        fps: frames per second; None for an image.
        height, width: in pixels, upright, as ``read`` returns them.
        dtype: "uint8", "uint16" or "float32".
        label: the class, or None.
        id: the file, or the row's own name: it stands in every error.
        crops: whether ``read`` honors box and size; otherwise the core crops and resizes.
    """

    @property
    def frames(self) -> int: ...
    @property
    def fps(self) -> float | None: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def label(self) -> int | None: ...
    @property
    def id(self) -> str: ...
    @property
    def crops(self) -> bool: ...

    def read(
        self,
        frame_ids: Sequence[int],
        box: tuple[float, float, float, float] | None = None,
        size: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """Return the frames asked for, ``[T, H, W, C]``; box is (top, left, height, width)."""
        ...


class Dataset(Protocol):
    """A fixed sequence of samples. Owns no random state and never substitutes a sample.

    ``classes`` are the names of the labels, or None where nothing is labeled. A labeled set may
    offer ``labels``, the label of every sample, so that they are known without opening any.
    """

    classes: Sequence[str] | None

    def __len__(self) -> int: ...

    def open(self, index: int) -> Source:
        """Open sample ``index``; raises DataError (or OSError) that names the file."""
        ...

    def name(self, index: int) -> str:
        """The sample's file or row name, without opening it."""
        ...


class Target(Protocol):
    """What the decoder has to predict, and how far it is off.

    ``views`` asks for further views of the same plan; ``views[0]`` of what ``encode`` gets is
    always the model's own clip. Pixels are float32 before ``data.stats``: uint8/255, uint16/65535,
    float as read. A target may also offer ``fit(batches)`` (once, before step 0), ``state()``
    (fitted tensors, kept with the weights), ``load_state(tensors)``, ``wants(grid) -> bool
    [t, h, w]`` (tokens that can be queried at all), and ``decode``. One with a frozen network of
    others reads its file in ``open()``, called before training and never to count parameters or to
    encode; it returns the options that pin the file (``{"sha256": ...}``), which go into the
    weights' header, and does not keep the network with the weights.
    """

    views: tuple[View, ...]
    out_dim: int

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        """Views ``[B, C, T, H, W]`` to the truth at ``mask.queries``: ``[B, Q, ...]``."""
        ...

    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        """``[B, Q, out_dim]`` and ``[B, Q, ...]`` to a float32 loss per token ``[B, Q]``."""
        ...


@runtime_checkable
class Paints(Protocol):
    """A target whose predictions are pixels, so that a picture makes sense."""

    def decode(
        self,
        pred: Tensor,
        pixels: Tensor,
        mask: Mask,
        statistics: Literal["visible", "truth"] = "visible",
    ) -> Tensor:
        """Predictions ``[B, Q, out_dim]`` to patches ``[B, Q, pt*ph*pw*C]`` in [0, 1] space.

        ``visible`` takes what must be undone (patch mean and variance) from visible patches only.
        """
        ...


@dataclass(frozen=True)
class Encoded:
    """What a backbone returns: ``tokens [B, prefix + K (or N), D]``, and on request more."""

    tokens: Tensor
    layers: tuple[Tensor, ...] = ()  # the blocks asked for, each as ``tokens``, not normalized
    attention: tuple[Tensor, ...] = field(default=())  # per block [B, heads, S, S]


class Backbone(Protocol):
    """The encoder: embeds and attends to visible tokens only.

    One that cannot leave tokens out says why in ``keeps_all``, a text (None, or no such attribute:
    it can); it is refused where a masker hides anything. For fine-tuning it may offer ``norm``, its
    last norm, and ``train_positions(trained) -> dict``: have its positions trained or not, and
    which of its options describe it from then on.
    """

    width: int
    patch: tuple[int, int, int]  # pixels per token: (pt, ph, pw)
    mask_unit: tuple[int, int, int]  # tokens per maskable unit
    prefix_tokens: int
    returns: Literal["visible", "all"]  # all: with the mask token in the encoder (MAE table 1c)

    def grid(self, shape: tuple[int, int, int]) -> Grid:
        """The token grid of a clip of ``(T, H, W)`` pixels; raises PartError if it does not fit."""
        ...

    def __call__(
        self,
        pixels: Tensor,
        mask: Mask,
        layers: Sequence[int] = (),
        attention: bool = False,
    ) -> Encoded:
        """Encode normalized pixels ``[B, C, T, H, W]``."""
        ...

    def blocks(self) -> Sequence[nn.Module]:
        """The repeated blocks, first to last: for recomputation, sharding, the last k."""
        ...

    def layer_of(self, parameter: str) -> int:
        """0 for what stands before the blocks, i + 1 for block i, len(blocks) + 1 after them."""
        ...

    def no_decay(self) -> Iterable[str]:
        """Names of parameters (beside 1-D ones) that some papers keep free of weight decay."""
        ...


class Decoder(Protocol):
    """Turns encoded tokens into predictions in the order of ``mask.queries``."""

    def __call__(self, encoded: Tensor, mask: Mask, grid: Grid) -> Tensor:
        """``[B, prefix + K (or N), D]`` to ``[B, Q, out_dim]``."""
        ...

    def no_decay(self) -> Iterable[str]:
        """As ``Backbone.no_decay``."""
        ...
