"""Headers of weights files: enough to rebuild the model without its recipe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from maekit.contracts import Grid
from maekit.recipe.schema import BackboneSpec, DecoderSpec, MaskerSpec, TargetSpec
from maekit.version import __version__

FORMAT = 1

Pool = Literal["mean", "cls"]
Norm = Literal["fresh", "pretrained", "tokens"]
HeadKind = Literal["multiclass", "multilabel", "regression", "detection"]


class RoI(BaseModel):
    """How tokens are pooled in a box, by RoIAlign; the defaults are VideoMAE's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bins: int = 7  # of height and width, each
    aligned: bool = False  # whether cells are shifted by half of one, as they should be
    inclusive: bool = True  # whether a box ends at its last pixel


class ClassifierHeader(BaseModel):
    """Description of what fine-tuning added: pooled tokens, a norm, a linear head."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: HeadKind
    outputs: tuple[str, ...]  # the classes, labels or values, in the order of the head
    pool: Pool
    # fresh: a new one behind the pooling, in place of the encoder's own; pretrained: the encoder's
    # own behind the pooling; tokens: where the encoder has it, before the pooling.
    norm: Norm
    dropout: float = 0.0
    batch_norm: bool = False
    norm_eps: float = 1e-6  # of the norm behind the pooling, where it is fresh
    roi: RoI | None = None  # of a detector, whose mean is over time and whose norm is before it

    def shapes(self, width: int) -> dict[str, tuple[int, ...]]:
        """Return the tensors of norm and head on features of this width, by name."""
        outputs = len(self.outputs)
        found: dict[str, tuple[int, ...]] = {
            "head.linear.weight": (outputs, width),
            "head.linear.bias": (outputs,),
        }
        if self.norm == "fresh":
            found |= {"fc_norm.weight": (width,), "fc_norm.bias": (width,)}
        if self.batch_norm:
            found |= {f"head.batch_norm.running_{kind}": (width,) for kind in ("mean", "var")}
            found["head.batch_norm.num_batches_tracked"] = ()
        return found


class FileHeader(BaseModel):
    """Header of every weights file of maekit, in the metadata of its safetensors file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    format: int = FORMAT
    maekit: str = __version__
    source: str | None = None  # where the weights come from: recipe, steps
    # Files written before this spelling call it "licence".
    license: str | None = Field(None, validation_alias=AliasChoices("license", "licence"))


class Header(FileHeader):
    """The description of a masked autoencoder."""

    kind: Literal["autoencoder"] = "autoencoder"
    backbone: BackboneSpec  # in the file: the part's name and all its options
    decoder: DecoderSpec | None = None
    target: TargetSpec | None = None
    # Values per token that the decoder predicts, where the target is unknown.
    out_dim: int | None = None
    masker: MaskerSpec | None = None
    classifier: ClassifierHeader | None = None
    clip: tuple[int, int, int]  # the model's own input in pixels: (T, H, W)
    channels: int
    mean: tuple[float, ...]  # of the [0, 1] pixels, per channel
    std: tuple[float, ...]
    # The values of pixels that are not 8-bit that were 0 and 1 to it; None: those of their type.
    range: tuple[float, float] | None = None
    # Versions of the distributions that its parts are of, besides maekit's own.
    plugins: dict[str, str] | None = None
    grid: Grid | None = None  # filled in when the model is built


class DVAEHeader(FileHeader):
    """The description of a discrete VAE."""

    kind: Literal["dvae"] = "dvae"
    dvae: dict[str, Any]  # its sizes, as the recipe's tokenizer.dvae
    channels: int
