"""What a part must offer: the whole API that a plugin author learns, on one page.

Shapes: B samples, C channels, T frames, H x W pixels; N = t*h*w patch tokens in raster order
(t, then h, then w), of which K are visible to the encoder and Q are to be predicted; D is a width.
A patch flattens to (pt, ph, pw, c), c fastest. **True = hidden** in every mask; masks never count
prefix (class, register) tokens.

A part is a class that inherits from one of the bases below and has a nested
``Options(PartOptions)``. It is declared under the entry-point group ``maekit.maskers``,
``.targets``, ``.backbones``, ``.decoders`` or ``.datasets``, and built as ``Class(options)``; a
class whose constructor takes a second argument gets a ``PartContext`` there. Abstract members must
be written; all others have the defaults that stand here. A part refuses what it cannot do with
``PartError("what is wrong", hint="what to try")``; where it stands in which recipe is added.

Models are also built on torch's meta device, where tensors have shapes and no values (to count
parameters, to compare weights): a constructor never reads a value (``.item()``, ``float(tensor)``),
and draws its random numbers from torch. Whatever a part is given it leaves as it is; arrays are
read-only.

Backbones and decoders are torch modules too: ``class MyViT(Backbone, nn.Module)``. They define
``forward``; callers go through ``nn.Module.__call__``, so that hooks, compilation
and sharding work. No submodule, parameter or buffer may have the name of a member of its base here
(``layers``, ``blocks``): the member hides it, and it is refused.

What cannot be a part, and why: a masker that learns (ADIOS, AdaMAE), or whose ratio changes in
training, as masks are drawn by loader workers, which have no torch and see no step, and as many
tokens are hidden in every sample; a loss of the class token, between samples or views (DINO, iBOT,
contrastive ones) and an adversary, as a loss is one number for each query of one sample and there
is one optimizer; a target that sees labels; a sixth kind of part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict

from maekit.errors import DataError, PartError, WeightsError
from maekit.grid import Grid

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from torch.nn import Module as _Module

    from maekit.tokens import Mask
else:
    _Module = object  # this page never imports torch; a part brings nn.Module itself

__all__ = [
    "CONTRACT",
    "Backbone",
    "Boxes",
    "DataError",
    "Dataset",
    "Decoder",
    "Encoded",
    "Foreign",
    "Grid",
    "Label",
    "Masker",
    "PartContext",
    "PartError",
    "PartOptions",
    "PixelTarget",
    "Source",
    "SourceInfo",
    "Target",
    "View",
    "WeightsError",
]

CONTRACT = 1  # raised when a part that kept this page's promises would no longer work


class PartOptions(BaseModel):
    """Base of every part's ``Options``: unknown keys are errors, values never change.

    Attributes:
        load_time: options that may differ between saved weights and the model that takes them,
            because no tensor depends on them, or because tensors are resized to them.
        inherited: options that show in no tensor's shape, and where they are unset are those of the
            weights that the model takes.
        positioned: whether the options ``positions``, ``positions_grid`` and ``resize_positions``
            are those of the part's one ``maekit.layers.Positions``: weights of another size then
            set them, as a fixed table is in no weights.
        pinned: options that name a file, each with the option that pins what is in it
            (``{"weights": "sha256"}``): where that is the same, the file may lie elsewhere, and
            where it is unset it is that of the weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    load_time: ClassVar[frozenset[str]] = frozenset()
    inherited: ClassVar[frozenset[str]] = frozenset()
    positioned: ClassVar[bool] = False
    pinned: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def structure(self) -> dict[str, Any]:
        """Return what weights depend on, as JSON values: all options but those of ``load_time``.

        Weights fit where it is equal. Where two options say the same (a size, and its width and
        depth), return one spelling of both.
        """
        return self.model_dump(mode="json", exclude=set(self.load_time))


@dataclass(frozen=True)
class PartContext:
    """Facts of the run that a part is built for.

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
    layer_widths: tuple[int, ...] = ()  # of what each of the encoder's blocks returns
    out_dim: int = 0  # what the target needs from the decoder, per token


class View(NamedTuple):
    """A view of one sample that a target needs from the loader, cut with the same plan."""

    name: str
    size: tuple[int, int]  # height, width in pixels
    interpolation: Literal["bicubic", "bilinear"] | None = "bicubic"  # None: as the own clip
    frames: int | None = None  # over the same time; None: as many as the model's own clip


class Masker(ABC):
    """Base of maskers: which tokens of one sample are hidden.

    A masker is a pure function: it knows no batch and no device.

    At one grid it hides the same number in every sample. Its only source of randomness is the
    generator that it is given. The grid is that of maskable units.

    Attributes:
        needs_pixels: whether it is given the crop.
        needs_hidden: whether it is given what is hidden from the encoder. Such a masker chooses
            what is predicted (``pretrain.decoder_masker``), and cannot choose what is hidden.
    """

    needs_pixels: bool = False
    needs_hidden: bool = False

    @abstractmethod
    def __call__(
        self,
        grid: Grid,
        rng: np.random.Generator,
        *args: Any,  # noqa: ANN401 - each names only what it needs
        **kwargs: Any,  # noqa: ANN401
    ) -> np.ndarray:
        """Return bool ``[t, h, w]``, True = hidden.

        With ``needs_pixels = True`` it is called as ``masker(grid, rng, pixels=pixels)``: the final
        crop ``[T, H, W, C]``, uint8, uint16 or float32, read-only. The first crop is all black: it
        is drawn once before training, to count. With ``needs_hidden = True`` it also gets
        ``hidden=hidden``, bool ``[t, h, w]``, read-only; True in its own map is then to be
        predicted.
        """

    def count(self, grid: Grid) -> int | None:  # noqa: ARG002
        """Return how many tokens it hides at a grid; None: a first mask is drawn and counted.

        Checks hold a masker to it; nothing else tells them that what is True is what it hides.
        """
        return None


@dataclass(frozen=True, eq=False)
class Boxes:
    """A label that is a set of boxes at one moment, each with its own set of labels.

    Attributes:
        corners: float64 ``[P, 4]``: left, top, right, bottom (x1, y1, x2, y2), as fractions of the
            picture's width and height.
        labels: one set of classes for each box; empty: nothing is known of it.
        scores: how sure a detector is of each; not given: 1.
        persons: a number for each, the same for one person throughout a movie; not given: -1.
        truth: whether each was annotated; otherwise it was detected. Not given: all were.
        asked: whether a model learns or predicts what happens in each. Not given: in all.
        movie: what the moment is of; with ``second``, what results are listed under.
        second: when it is.
    """

    corners: np.ndarray
    labels: tuple[frozenset[int], ...]
    scores: tuple[float, ...] = ()
    persons: tuple[int, ...] = ()
    truth: tuple[bool, ...] = ()
    asked: tuple[bool, ...] = ()
    movie: str = ""
    second: float = 0.0

    def __post_init__(self) -> None:
        """Fill in what was not given.

        Raises:
            ValueError: not as many of everything.
        """
        count = len(self.labels)
        filled = {"scores": 1.0, "persons": -1, "truth": True, "asked": True}
        for name, value in filled.items():
            if not getattr(self, name):
                object.__setattr__(self, name, (value,) * count)
        counts = {name: len(getattr(self, name)) for name in ("corners", "labels", *filled)}
        if set(counts.values()) != {count} or self.corners.shape != (count, 4):
            raise ValueError(f"boxes of corners {self.corners.shape} and {counts}")

    def __len__(self) -> int:
        """Return the number of boxes."""
        return len(self.labels)

    def __eq__(self, other: object) -> bool:
        """Return whether all is the same; arrays have no answer of their own."""
        if not isinstance(other, Boxes):
            return NotImplemented
        mine, theirs = (
            each.__dict__ | {"corners": each.corners.tolist()} for each in (self, other)
        )
        return mine == theirs

    def __hash__(self) -> int:
        return hash((self.frame, self.labels))

    @property
    def frame(self) -> str:
        """What lists of boxes call the moment: ``movie,0902``."""
        return f"{self.movie},{second_text(self.second)}"

    def only(self, wanted: Sequence[bool] | np.ndarray) -> Boxes:
        """Return the boxes that are wanted."""
        kept = [place for place, want in enumerate(wanted) if want]
        return replace(
            self,
            corners=self.corners[kept],
            labels=tuple(self.labels[place] for place in kept),
            scores=tuple(self.scores[place] for place in kept),
            persons=tuple(self.persons[place] for place in kept),
            truth=tuple(self.truth[place] for place in kept),
            asked=tuple(self.asked[place] for place in kept),
        )


def second_text(second: float) -> str:
    """Write a second as AVA's files do, with four digits: ``0902``, or ``0902.500``."""
    return f"{second:04.0f}" if second == int(second) else f"{second:08.3f}"


# A class, a vector of floats, a set of classes, boxes, or nothing. The loader carries any of them.
Label: TypeAlias = "int | np.ndarray | frozenset[int] | Boxes | None"


class SourceInfo(NamedTuple):
    """Facts of a sample before its pixels are decoded."""

    id: str  # the file, or the row's own name: every error names it
    height: int  # in pixels, upright, as ``read`` returns them
    width: int
    channels: int
    dtype: str = "uint8"  # or "uint16", "float32"
    frames: int = 1  # 1 for an image
    fps: float | None = None  # frames per second; None for an image
    label: Label = None
    crops: bool = False  # whether ``read`` takes box and size; otherwise the core crops and resizes
    further: int = 0  # pages, or frames of an animation, that are in the file and never read


@dataclass(frozen=True)
class Source:
    """One opened sample.

    Attributes:
        info: what its header says.
        read: ``read(frame_ids)`` returns these frames, ``[T, H, W, C]``, in this order. With
            ``info.crops`` it is called as ``read(frame_ids, box, size)``, and resizes the box
            (top, left, height, width in pixels) to size (height, width).
        at: of a label that is of one moment. ``at(seconds, late)`` returns the frames shown at
            these times, in seconds after the moment (negative: before it): of each the last one
            that comes at most ``late`` seconds after the time; beyond the video its first or last.
            None: the label is of the whole sample.
    """

    info: SourceInfo
    read: Callable[..., np.ndarray] = field(repr=False)
    at: Callable[[Sequence[float], float], Sequence[int]] | None = field(default=None, repr=False)


class Dataset(ABC):
    """A fixed sequence of samples. Owns no random state and never substitutes a sample.

    Attributes:
        classes: the names of the labels; None where nothing is labeled.
        labels: the label of every sample, so that they are known without opening any; None: each
            sample is opened to learn its label.
        left_out: what the set knows of and does not give, counts by reason: reasons read
            well after a number (".txt files").
        notes: what else people should know of it, a line each.
        judged: the classes that a set of boxes is judged by; None: all.
        excluded: boxes at moments that are neither learned nor judged, and so no samples.
    """

    classes: Sequence[str] | None = None
    labels: Sequence[Label] | np.ndarray | None = None
    left_out: Mapping[str, int] = MappingProxyType({})
    notes: Sequence[str] = ()
    judged: Sequence[int] | None = None
    excluded: Sequence[Boxes] = ()

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def open(self, index: int) -> Source:
        """Open sample ``index``; raises DataError (or OSError) that names the file."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Return the sample's file or row name, without opening it."""

    def containing_file(self, index: int) -> str:
        """Return the file that a sample lies in, where its name is not that of a file.

        A resumed run sees by it that another file has come in its place. It is opened by nobody.
        """
        return self.name(index)

    def sources(self, by: str) -> Sequence[str]:
        """Return where each sample comes from, so that ``data.val: {split: ...}`` keeps it whole.

        Args:
            by: ``sample`` (its name), ``folder`` (that of its name), or a word that this set knows,
                as a column of its list.

        Raises:
            DataError: it knows no such word.
        """
        names = [self.name(index) for index in range(len(self))]
        if by == "sample":
            return names
        if by == "folder":
            return [name.rpartition("/")[0] for name in names]
        raise DataError(
            f"this data set has no '{by}' to split by",
            where="data.val.by",
            hint="sample, folder, or a column of a list (CSV with a header, or JSONL)",
        )

    @classmethod
    def reads(cls, path: str) -> bool:  # noqa: ARG003
        """Return whether a path holds what this data set reads, so that no name has to be given."""
        return False


class Target(ABC):
    """Base of targets: the values that the decoder has to predict, and their loss.

    Pixels are float32 before ``data.stats``: uint8/255, uint16/65535, float as read. A frozen
    network of others is read in ``open`` and not kept with the weights: of a target nothing is
    kept but ``state()``. A parameter that would be trained is refused unless ``state`` returns it,
    by its name in ``named_parameters``, and ``load_state`` copies into it.

    Attributes:
        views: further views of the same plan; ``views[0]`` of what ``encode`` gets is always the
            model's own clip.
        out_dim: values that the decoder predicts for each token.
    """

    views: Sequence[View] = ()
    out_dim: int

    @abstractmethod
    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        """Turn views ``[B, C, T, H, W]`` into the truth at ``mask.queries``: ``[B, Q, ...]``.

        Called without gradients, under the run's autocast.
        """

    @abstractmethod
    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare ``[B, Q, out_dim]`` and ``[B, Q, ...]``: a float32 loss per token ``[B, Q]``.

        Called under the run's autocast: ``pred`` may be in half precision.
        """

    def wants(self, grid: Grid) -> np.ndarray | None:  # noqa: ARG002
        """Return the tokens that can be predicted, bool ``[t, h, w]``; None: all of them."""
        return None

    def open(self) -> Mapping[str, object]:
        """Read the file of a frozen network, before training; never called to count parameters.

        Returns:
            The options that pin the file (``{"sha256": ...}``): they go into the weights' header.
        """
        return {}

    def fit(self, batches: Iterable[Sequence[Tensor]]) -> None:  # noqa: B027 - optional
        """Fit to the views of the first training batches, once before step 0."""

    def state(self) -> Mapping[str, Tensor]:
        """Return what was fitted: it is kept with the weights."""
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what ``state`` returned.

        Raises:
            WeightsError: these tensors are not this target's.
        """
        if tensors:
            names = ", ".join(f"target.{name}" for name in sorted(tensors))
            what = f"the weights do not match the model: {len(tensors)} unexpected: {names}"
            raise WeightsError(what, hint="use the recipe that these weights come from")

    def attach(self, backbone: Backbone) -> None:  # noqa: B027 - optional
        """See the encoder that is trained: once, with its weights, before the first step.

        Of a resumed run ``load_state`` came before. What a target wants to keep of the encoder it
        copies (``copy.deepcopy(backbone).requires_grad_(False)``): a moving average, a teacher.
        """

    def after_update(self, step: int, steps: int) -> None:  # noqa: B027 - optional
        """Follow an update of the encoder; called without gradients.

        Also after one that was skipped, as its loss or gradient was not finite: the encoder is then
        as it was. Whether it was is known on the device alone, and nothing waits for it. Where all
        samples of an update were bad, there is none, and no call.

        Args:
            step: finished updates, from 1.
            steps: those of the whole run.
        """


class PixelTarget(Target):
    """A target whose predictions are pixels, so that they can be shown as a picture."""

    @abstractmethod
    def decode(
        self,
        pred: Tensor,
        pixels: Tensor,
        mask: Mask,
        statistics: Literal["visible", "truth"] = "visible",
    ) -> Tensor:
        """Turn predictions ``[B, Q, out_dim]`` into patches ``[B, Q, pt*ph*pw*C]`` in [0, 1] space.

        ``visible`` takes what must be undone (patch mean and variance) from visible patches only.
        """


@dataclass(frozen=True)
class Encoded:
    """Output of a backbone: ``tokens [B, prefix + K (or N), D]``, and on request more."""

    tokens: Tensor
    layers: tuple[Tensor, ...] = ()  # the requested blocks, each as ``tokens``, not normalized
    attention: tuple[Tensor, ...] = field(default=())  # per block [B, heads, S, S]


@dataclass(frozen=True)
class Foreign:
    """Weights of somebody else, as a backbone recognized them.

    Attributes:
        options: of the backbone, as a recipe would hold them.
        tensors: under the backbone's own names; all that it has.
        title: whose weights they are, for people.
        shape: the clip in pixels that they were trained at, (T, H, W).
        channels: of the pixels.
        mean, std: of the pixels in [0, 1], per channel; None: ImageNet's.
        left_out: how many tensors of the file are not taken, by reason.
    """

    options: Mapping[str, object]
    tensors: Mapping[str, Tensor]
    title: str
    shape: tuple[int, int, int]
    channels: int = 3
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)


class Backbone(ABC, _Module):
    """The encoder: embeds and attends to visible tokens only.

    Attributes:
        width: D of the tokens that it returns.
        layer_widths: of what each block returns, where they differ from ``width``.
        patch: pixels per token, (pt, ph, pw).
        mask_unit: tokens per maskable unit.
        prefix_tokens: class and register tokens before the patch tokens.
        returns: ``all``: hidden tokens too, as the mask token went through the encoder (MAE
            table 1c).
        keeps_all: why no token can be left out: such a backbone is refused where a masker hides
            anything. None: any token can.
        any_grid: whether ``forward`` takes clips of another height and width than the context's:
            positions are resized to their grid on the way.
        free_patch: whether ``patch`` may be another one than that of weights that it takes, as no
            tensor depends on it; a decoder of another patch then begins anew.
        inflates: names of backbones whose weights it takes, as a model of one frame.
        inflate: how the patch embedding of such weights fills the frames of a patch.
    """

    width: int
    patch: tuple[int, int, int]
    mask_unit: tuple[int, int, int] = (1, 1, 1)
    prefix_tokens: int = 0
    returns: Literal["visible", "all"] = "visible"
    keeps_all: str | None = None
    any_grid: bool = False
    free_patch: bool = False
    layer_widths: Sequence[int] = ()
    inflates: Sequence[str] = ()
    inflate: Literal["average", "center"] = "average"

    @abstractmethod
    def forward(
        self, pixels: Tensor, mask: Mask, layers: Sequence[int] = (), attention: bool = False
    ) -> Encoded:
        """Encode normalized pixels ``[B, C, T, H, W]``."""

    @abstractmethod
    def grid(self, shape: tuple[int, int, int]) -> Grid:
        """Return the token grid of a clip of ``(T, H, W)`` pixels; PartError if it does not fit."""

    @abstractmethod
    def blocks(self) -> Sequence[_Module]:
        """Return the repeated blocks, first to last: for recomputation, sharding, the last k."""

    @abstractmethod
    def layer_of(self, parameter: str) -> int:
        """Return 0 before the blocks, i + 1 for block i, len(blocks) + 1 after them."""

    def no_decay(self) -> Iterable[str]:
        """Return names of parameters (1-D ones apart) that some papers exempt from weight decay."""
        return ()

    def last_norm(self) -> _Module | None:
        """Return the norm after the last block, for ``norm: pretrained``; None: there is none."""
        return None

    def train_positions(self, trained: bool) -> dict[str, object]:
        """Make positions trainable or fixed, and return the options that describe them then.

        Raises:
            PartError: they cannot be fixed (or trained).
        """
        if trained:
            return {}  # whatever positions there are, they are parameters like others
        raise PartError(
            f"{type(self).__name__} cannot keep its positions fixed",
            where="finetune.positions",
            hint="set it to trainable",
        )

    @classmethod
    def foreign(cls, tensors: Mapping[str, Tensor]) -> Foreign | None:  # noqa: ARG003
        """Recognize somebody else's weights by their names; None: they are not of this kind.

        Asked where maekit itself does not know a file's format. The tensors keep their values.
        """
        return None

    def resized(
        self,
        tensors: Mapping[str, Tensor],
        old: Grid,  # noqa: ARG002
        new: Grid,  # noqa: ARG002
    ) -> Mapping[str, Tensor]:
        """Fit weights of one grid to this model, which is of another; return all of them.

        ``maekit.layers.Positions`` and ``PatchEmbedding`` are fitted already; what else depends on
        the grid is fitted here.

        Args:
            tensors: by this module's names.
            old: the grid that they are of.
            new: this model's.
        """
        return tensors


class Decoder(ABC, _Module):
    """Base of decoders: encoded tokens to predictions in the order of ``mask.queries``.

    Attributes:
        layers: blocks of the encoder, from 0 and increasing, whose outputs ``encoded.layers`` has.
    """

    layers: Sequence[int] = ()

    @abstractmethod
    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        """Turn ``encoded.tokens [B, prefix + K (or N), D]`` into ``[B, Q, out_dim]``."""

    def no_decay(self) -> Iterable[str]:
        """Return names, as ``Backbone.no_decay``."""
        return ()

    def resized(
        self,
        tensors: Mapping[str, Tensor],
        old: Grid,  # noqa: ARG002
        new: Grid,  # noqa: ARG002
    ) -> Mapping[str, Tensor]:
        """Fit weights of one grid to this model, which is of another, as ``Backbone.resized``."""
        return tensors
