"""The shape of a recipe: its sections, keys and their limits.

Torch-free. The classes of parts' options come from ``maekit.registry``, which knows the installed
plugins, as validation context.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    get_args,
)

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType

from maekit.errors import PartError
from maekit.origin import Place
from maekit.recipe.ablate import Ablate
from maekit.recipe.finetune import Finetune
from maekit.recipe.probe import OnlineProbe, Probe
from maekit.recipe.sections import AdamW, ColorJitter, Fit, HeldOutSection, PositiveRate, Section
from maekit.recipe.tokenizer import Tokenizer
from maekit.text import carried, restored

if TYPE_CHECKING:
    from collections.abc import Iterator


class Untyped(BaseModel):
    """A part's options as written, where the part's class was not looked up."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


# Finds the class of a part's options by kind and name; given as validation context, since the
# recipe knows no part. None: the part is not to be looked up, its options stay as written.
OptionsOf = Callable[[str, str], type[BaseModel] | None]
OPTIONS_OF = "options_of"
# Returns the name that means a part wherever it is read again, likewise.
NameOf = Callable[[str, str], str]
NAME_OF = "name_of"


class PartSpec(BaseModel):
    """A part by name, with its options next to the name.

    What is written is validated in one go: the name, the core's own keys, and the options by the
    part's own class, so that all mistakes are found at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: ClassVar[str]  # the registry's word for what stands here
    name: str = Field(min_length=1, description="the part's name, or distribution/name")

    _options: BaseModel = PrivateAttr(default_factory=Untyped)
    _place: Place = PrivateAttr(default_factory=Place)

    @property
    def place(self) -> Place:
        """Where the recipe names it, for errors."""
        return self._place

    def stand_at(self, place: Place) -> None:
        """Know where the recipe names it."""
        self._place = place

    @property
    def options(self) -> BaseModel:
        """The part's own options: an object of its ``Options`` class."""
        return self._options

    @property
    def written(self) -> dict[str, Any]:
        """Return name, core's keys and options as one flat mapping of JSON values."""
        return self.model_dump(mode="json", by_alias=True)

    def with_options(self, options: BaseModel) -> Self:
        """Return the same part with other options."""
        copied = self.model_copy()
        copied._options = options  # noqa: SLF001 - its own
        return copied

    @model_validator(mode="wrap")
    @classmethod
    def _validate_options(
        cls, value: object, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        if not isinstance(value, dict):
            return handler(value)
        core = cls.model_fields.keys()
        own = {key: each for key, each in value.items() if key not in core}
        problems: list[InitErrorDetails] = []
        options: BaseModel = Untyped()
        name = value.get("name")
        if isinstance(name, str) and name:
            try:
                options = _validated_options(cls.kind, name, own, info)
            except ValidationError as error:
                problems += map(_raised_again, error.errors(include_url=False))
        elif own:
            options = Untyped.model_validate(own)
        given = {key: each for key, each in value.items() if key in core}
        name_of: NameOf | None = (info.context or {}).get(NAME_OF)
        if name_of is not None and isinstance(name, str) and name and not problems:
            given["name"] = name_of(cls.kind, name)
        try:
            spec = handler(given)
        except ValidationError as error:
            problems += map(_raised_again, error.errors(include_url=False))
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, problems)
        # In place: of a constructor's call this is the instance itself.
        spec._options = options  # noqa: SLF001
        return spec

    @model_serializer(mode="wrap")
    def _flat(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        core: dict[str, Any] = handler(self)
        return core | self._options.model_dump(mode=info.mode, by_alias=True)


def _validated_options(
    kind: str, name: str, written: dict[str, Any], info: ValidationInfo
) -> BaseModel:
    options_of: OptionsOf | None = (info.context or {}).get(OPTIONS_OF)
    try:
        found = None if options_of is None else options_of(kind, name)
    except PartError as error:
        context = {"what": error.what, "hint": error.hint, "part": True}
        unknown = PydanticCustomError("part", "{what}", context)
        details = InitErrorDetails(type=unknown, loc=("name",), input=name)
        raise ValidationError.from_exception_data(kind, [details]) from error
    if found is None:
        return Untyped.model_validate(_named(written))
    # As JSON, like the recipe around it: lists become tuples, but "3" and true are not numbers.
    options = found.model_validate_json(
        carried(json.dumps(written, ensure_ascii=False)), strict=True, by_alias=True, by_name=False
    )
    # What was validated must mean the same files wherever it is read again.
    paths = {key: _named(getattr(options, key)) for key in type(options).model_fields}
    moved = {key: path for key, path in paths.items() if path is not getattr(options, key)}
    return options.model_copy(update=moved) if moved else options


def _named(value: Any) -> Any:  # noqa: ANN401
    """Return a value with paths made absolute and names as files have them; itself if unchanged."""
    if isinstance(value, Path):
        return Path(restored(str(value))).expanduser().absolute()
    if isinstance(value, str):
        name = restored(value)
        return value if name == value else name
    if isinstance(value, dict):
        changed = {key: _named(each) for key, each in value.items()}
        return changed if any(changed[key] is not value[key] for key in value) else value
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [_named(each) for each in value]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else type(value)(items)
    return value


_PYDANTICS = frozenset(get_args(ErrorType))  # the types of errors that can be raised by name


def _raised_again(details: ErrorDetails) -> InitErrorDetails:
    """Make of an error that Pydantic found one that can be raised again."""
    kind: Any = details["type"]
    context = details.get("ctx", {})
    if kind not in _PYDANTICS:
        # As a value, since Pydantic would take braces in the message for a template's.
        kind = PydanticCustomError(kind, "{_said}", {**context, "_said": details["msg"]})
    return InitErrorDetails(type=kind, loc=details["loc"], input=details["input"], ctx=context)


class BackboneSpec(PartSpec):
    """The encoder."""

    kind = "backbones"


class DecoderSpec(PartSpec):
    """Decoder of pre-training, on the encoder."""

    kind = "decoders"


class MaskerSpec(PartSpec):
    """Masker: which tokens are hidden."""

    kind = "maskers"


class TargetSpec(PartSpec):
    """Target: what the decoder predicts."""

    kind = "targets"


Sampling = Literal["dense", "spread", "timed", "centered", "segments", "segments-floor"]
SEGMENTS = ("segments", "segments-floor")  # which have no stride
RATE = 30.0  # frames a second that mae_st counts in, whatever a video has


class DataSpec(PartSpec):
    """A dataset part with the keys that the core owns: they are never passed to the part."""

    kind = "datasets"

    frames: int = Field(1, ge=1, description="frames a clip; 1 for images")
    stride: int = Field(1, ge=1, description="frames from one sampled frame to the next")
    sampling: Sampling = Field(
        "dense",
        description="of a clip's frames; dense: consecutive at the stride; spread: evenly over "
        "frames * stride, the first and the last of them shown (VideoMAE's fine-tuning); timed: "
        "the same by the clock, whatever a video's rate, over frames * stride at `rate` a second "
        "(mae_st); centered: "
        "around the moment that a label is of, or the middle, at the stride in frames of `rate` a "
        "second (AVA); segments: "
        "one from each of as many equal segments of the video (TSN); segments-floor: in training "
        "each has frames // clip frames, so that the rest is never shown, and a shorter video "
        "shows its first frame only (VideoMAE's ssv2.py)",
    )
    rate: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="frames a second that timed and centered clips count in; unset: 30 (mae_st), "
        "centered: each video's own. Of files that do not say their own rate, it is taken for "
        "theirs",
    )
    first: int | None = Field(
        None,
        description="of centered clips: where the first frame lies from the moment, in frames of "
        "`rate` a second; unset: -(frames * stride // 2) + (stride - 1) // 2, which is VideoMAE's "
        "-31 of 16 frames at stride 4 (SlowFast: -32)",
    )
    jitter: bool = Field(
        False,
        description="of centered clips in training: each frame moves by -(stride // 2) to "
        "(stride - 1) // 2 frames of `rate` a second, at random (MMAction)",
    )
    max_bad_fraction: float = Field(
        0.01,
        ge=0,
        le=1,
        description="unreadable files tolerated, as a fraction of the set; up to 9 are in any set, "
        "unless it is 0",
    )
    published: str | None = Field(
        None, description="where the set is published; said where it is not found"
    )

    @model_validator(mode="after")
    def _only_what_the_sampling_knows(self) -> DataSpec:
        if self.sampling in SEGMENTS and self.stride > 1:
            raise ValueError(
                f"stride {self.stride} means nothing with sampling {self.sampling}; drop one of "
                "the two"
            )
        if self.rate is not None and self.sampling not in {"timed", "centered"}:
            raise ValueError(
                f"rate {self.rate:g} means nothing with sampling {self.sampling}; drop one of the "
                "two"
            )
        for key in ("first", "jitter"):
            if getattr(self, key) not in {None, False} and self.sampling != "centered":
                raise ValueError(
                    f"{key} means nothing with sampling {self.sampling}; drop one of the two"
                )
        return self


class Split(Section):
    """A share of data.train that is held out, the same in every run."""

    split: float = Field(
        gt=0, lt=1, description="share of data.train that is held out, of each class alike"
    )
    by: str = Field(
        "sample",
        min_length=1,
        description="what stays together: sample, folder, or a column of data.train's list",
    )


class HeldOutSpec(DataSpec):
    """Held-out samples: their clips are as long as data.train's."""

    # As ``{split: ..., by: ...}`` in a recipe, without a name: the rest is data.train's.
    held_out: Split | None = Field(None, exclude=True, description="a share of data.train")

    # Never written into a resolved recipe: it would contradict a later change of data.train's. A
    # factory, as 1 is not a default that users should read.
    frames: int = Field(
        default_factory=lambda: 1,
        ge=1,
        exclude=True,
        description="data.train's, which it follows where it is not given",
    )


class Stats(Section):
    """Mean and standard deviation of the [0, 1] pixels, per channel."""

    mean: tuple[float, ...] = Field(min_length=1, description="per channel, of [0, 1] pixels")
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(description="per channel")

    @model_validator(mode="after")
    def _same_length(self) -> Stats:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels, std has {len(self.std)}")
        return self


Side = Annotated[int, Field(ge=1, le=16384)]


def _of_other_length(val: int, train: int) -> ValidationError:
    """Build the error of clips of another length.

    It stands at data.val.frames, where it is given: an error of the whole data.val has its line.
    """
    error = PydanticCustomError(
        "clip_length",
        "expected {train}, as data.train.frames, got {val}: a model has clips of one length",
        {"train": train, "val": val, "hint": "leave it out (~data.val.frames), or set both"},
    )
    details = InitErrorDetails(type=error, loc=("frames",), input=val)
    return ValidationError.from_exception_data("data.val", [details])


class Data(Section):
    """Data sets, and the size at which they are read."""

    train: DataSpec = Field(description="{name: a dataset, and its options}")
    val: HeldOutSpec | None = Field(None, description="held-out samples; without: no validation")
    size: Side | tuple[Side, Side] = Field(224, description="pixels: side, or [height, width]")
    fit: Fit = Field(
        "crop",
        description="views that are not drawn at random (augment none, held-out samples, tests) of "
        "samples of another aspect; crop: their center, cut to the view's; pad: all of them, with "
        "their mean around, whose tokens do not count in the loss; stretch: all of them, distorted",
    )
    range_: tuple[float, float] | Literal["auto"] | None = Field(
        None,
        alias="range",
        description="[low, high]: the values of 16-bit, integer and float pixels that become 0 and "
        "1, others are clipped to them; auto: the least and the largest of data.train; unset: 0 "
        "and 65535 of 16-bit pixels, others as read. 8-bit pixels are always 0 to 255",
    )
    channels: int = Field(3, ge=1, le=4096, description="1 and 3 are converted to each other")
    stats: Stats | Literal["imagenet", "auto"] | None = Field(
        None,
        description="normalization of the pixels; unset: imagenet for integer pixels, "
        "an error for float ones",
    )
    shuffle: Literal["full", "window"] = Field(
        "full", description="window: only within stretches of shuffle_window, for slow disks"
    )
    shuffle_window: int = Field(4096, ge=2, description="samples in one of window's stretches")
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="loader processes; 0: none"
    )
    timeout: float = Field(60.0, gt=0, description="seconds that one sample may take")

    @field_validator("val")
    @classmethod
    def _clips_are_as_long(
        cls, val: HeldOutSpec | None, info: ValidationInfo
    ) -> HeldOutSpec | None:
        train: DataSpec | None = info.data.get("train")  # not there where it is wrong itself
        if val is None or train is None:
            return val
        if "frames" not in val.model_fields_set:
            return val.model_copy(update={"frames": train.frames})
        if val.frames != train.frames:
            raise _of_other_length(val.frames, train.frames)
        return val

    @field_validator("range_")
    @classmethod
    def _range_rises(
        cls, value: tuple[float, float] | Literal["auto"] | None
    ) -> tuple[float, float] | Literal["auto"] | None:
        if isinstance(value, tuple) and not value[0] < value[1]:
            raise ValueError("range is [low, high], the lower one first")
        return value

    @model_validator(mode="after")
    def _stats_fit_channels(self) -> Data:
        if isinstance(self.stats, Stats) and len(self.stats.mean) != self.channels:
            raise ValueError(
                f"stats has {len(self.stats.mean)} channels, but channels is {self.channels}"
            )
        return self

    @property
    def height_width(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


class Model(Section):
    """The encoder, and the decoder that pre-training puts on it."""

    backbone: BackboneSpec = Field(description="the encoder: {name: ..., and its options}")
    decoder: DecoderSpec | None = Field(None, description="needed to pre-train")


class PretrainAdamW(AdamW):
    """AdamW with the papers' parameter groups."""

    base_lr: PositiveRate = Field(1.5e-4, description="learning rate per 256 samples")
    decay_tokens: bool = Field(
        True,
        description="decay class and mask tokens too (MAE); false: keep them free (VideoMAE)",
    )
    lr_counts_repeats: bool = Field(False, description="repeats count in the lr rule (mae_st)")


class Pretrain(HeldOutSection):
    """Masked-autoencoder pre-training."""

    split_matters: ClassVar[bool] = False

    model: dict[str, Any] | None = Field(None, description="overlay on model for this verb")
    masker: MaskerSpec = Field(description="what is hidden: {name: ..., and its options}")
    decoder_masker: MaskerSpec | None = Field(
        None, description="which tokens are predicted (True = to predict); default: the hidden"
    )
    target: TargetSpec = Field(description="what is predicted: {name: ..., and its options}")
    repeats: int = Field(1, ge=1, description="views and masks of each decoded sample")
    repeat_from: Literal["new-clip", "same-frames"] = Field(
        "new-clip", description="what a repeat draws anew besides box and mask"
    )
    loss_on: Literal["hidden", "all"] = Field("hidden", description="tokens that are predicted")
    optimizer: PretrainAdamW = Field(PretrainAdamW(), description="AdamW's rates and weight decay")
    online_probe: OnlineProbe | None = Field(
        None, description="judge features of labeled samples every so many steps"
    )


class Expected(Section):
    """A number that this recipe should reach, and who says so."""

    metric: str = Field(min_length=1, description="a key of result.json")
    value: float = Field(description="what it should be, in the result's own units")
    band: float | tuple[float, float] | None = Field(
        None, description="half-width around value, or [low, high]"
    )
    source: str = Field(min_length=1, description="who measured it: a paper, a log, a run")
    protocol: str | None = Field(
        None,
        description="as in result.json: linear/paper, linear/cached, knn, finetune/all/5x3; "
        "numbers of another are not compared; unset: of any",
    )


def _listed(value: object) -> object:
    """Let one word stand for a list of it."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _each_once(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if names is not None and len(set(names)) < len(names):
        msg = "a logger is named twice"
        raise ValueError(msg)
    return names


LoggerName = Literal["tensorboard", "wandb", "mlflow", "csv"]


class Recipe(Section):
    """One experiment."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=100,
        description="letters, digits, '_', '.', '-'; runs go to runs/<name>",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="of every random draw")
    data: Data = Field(description="what is read, at which size: data.train at least")
    model: Model | None = Field(
        None, description="the encoder and the decoder; a tokenizer alone needs none"
    )
    pretrain: Pretrain | None = Field(None, description="what `maekit pretrain` does")
    tokenizer: Tokenizer | None = Field(None, description="what `maekit tokenizer` does")
    finetune: Finetune | None = Field(None, description="what `maekit finetune` does")
    probe: Probe | None = Field(None, description="what `maekit probe` does")
    ablate: Ablate | None = Field(None, description="what `maekit ablate` does")
    log: (
        Annotated[tuple[LoggerName, ...], BeforeValidator(_listed), AfterValidator(_each_once)]
        | None
    ) = Field(
        None,
        description="where numbers and pictures of trainings go besides metrics.jsonl and log.txt: "
        "tensorboard, wandb, mlflow, csv; unset: tensorboard, where it is installed; []: nowhere",
    )
    expected: tuple[Expected, ...] = Field((), description="numbers this recipe should reach")
    plugins: dict[str, str] | None = Field(
        None,
        description="versions of the distributions that parts are of, besides maekit itself; "
        "filled in where a recipe is resolved",
    )

    @model_validator(mode="after")
    def _colors_are_there(self) -> Self:
        if self.data.channels in (1, 3):
            return self
        for verb in VERBS:
            section = getattr(self, verb)
            jitters = isinstance(getattr(section, "augment", None), ColorJitter)
            if jitters:
                raise ValueError(
                    f"{verb}.augment color-jitter is for 1 or 3 channels, and data.channels is "
                    f"{self.data.channels}; take random-resized-crop"
                )
            if getattr(section, "rand_augment", None) is not None:
                raise ValueError(
                    f"{verb}.rand_augment is for 1 or 3 channels, and data.channels is "
                    f"{self.data.channels}; set it to null"
                )
        return self

    @model_validator(mode="after")
    def _crops_have_room(self) -> Self:
        for verb in VERBS:
            crops: int = getattr(getattr(getattr(self, verb), "views", None), "crops", 1)
            if self.data.fit != "crop" and crops > 1:
                raise ValueError(
                    f"{verb}.views.crops: data.fit {self.data.fit} shows all of a sample, so that "
                    f"{crops} crops are the same; set it to 1"
                )
        return self

    @model_validator(mode="after")
    def _pretrain_has_a_model(self) -> Self:
        if self.pretrain is not None and self.model is None:
            raise ValueError("model: missing; pretrain needs model.backbone and model.decoder")
        return self


# Sections that a verb reads for itself, and those that it may overlay.
VERBS: tuple[str, ...] = ("pretrain", "tokenizer", "finetune", "probe")
OVERLAYS: tuple[str, ...] = ("data", "model")


def parts(
    section: BaseModel, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], PartSpec]]:
    """Yield every part that a recipe (or a section of one) names, with the path of its key."""
    if isinstance(section, PartSpec):
        yield path, section
        return
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from parts(value, (*path, field.alias or name))
