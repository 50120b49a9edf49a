"""A probe from its resolved recipe: frozen features, a head fitted on them, accuracies.

Always measured alike: the encoder, the same encoder untrained, raw pixels, and of clips the
differences of their frames.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch

from maekit.data.bad_files import BadFiles
from maekit.data.rendering import Rendering
from maekit.data.statistics import cache_key, samples_of
from maekit.engine import distributed
from maekit.engine.batches import open_sets, with_known_range, workers_of
from maekit.engine.events import Emit, Note
from maekit.engine.precision import Precision
from maekit.errors import RecipeError
from maekit.evaluate.baselines import (
    FrameDifferenceBaseline,
    PixelBaseline,
    reduced_size,
    untrained,
)
from maekit.evaluate.classifier import Classifier, classifier_tensors
from maekit.evaluate.encoder import digest_of_weights, load_encoder
from maekit.evaluate.feature_cache import (
    SHARD_SIZE,
    FeatureArrays,
    FeatureSet,
    FeatureShards,
    Name,
    OnBad,
    collect_features,
    collect_shards,
    count_bad,
    raise_on_bad,
)
from maekit.evaluate.features import Features, auto_pool
from maekit.evaluate.labels import (
    Labeled,
    announce_labels,
    chance_level,
    check_labels,
    warn_of_accuracy,
)
from maekit.evaluate.predictions import TOP, Predictions, Reading
from maekit.evaluate.probe_heads import FittedHead, Layer, check_head, fit_head
from maekit.evaluate.views import ViewReader, view_reader
from maekit.progress import counted
from maekit.weights.header import ClassifierHeader
from maekit.weights.locate import SCRATCH
from maekit.weights.safetensors_io import write_weights

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from maekit.contracts import Dataset
    from maekit.data.batch import BadFile, Batch
    from maekit.evaluate.features import Pool
    from maekit.evaluate.predictions import Extractor
    from maekit.model import MaskedAutoencoder
    from maekit.recipe.probe import Probe
    from maekit.recipe.schema import DataSpec, Recipe
    from maekit.recipe.sections import Views
    from maekit.weights.header import Header, Norm

TRAIN, VAL = "data.train", "data.val"
# What is evaluated; only clips have differences of frames.
MODEL, RANDOM, PIXELS, DIFFERENCES = "model", "random", "pixels", "differences"
SAID = {
    RANDOM: "the same encoder untrained",
    PIXELS: "raw pixels",
    DIFFERENCES: "raw differences of frames",
}
SIGMAS = 2.0  # standard errors that a difference must be large to count
AT_ONCE = 64  # views that are encoded together, where the recipe does not say
# What the numbers of a trained probe depend on.
TRAINED = ("epochs", "steps", "samples", "warmup", "batch", "optimizer", "augment", "clip_grad")
# What features depend on, of ``settings``.
FEATURES = (
    *("pool", "layer", "clip", "mean", "std", "frames"),
    *("views", "enlarge", "fit", "range", "interpolation", "pixels", "precision"),
)


@dataclass(frozen=True)
class ProbeResult:
    """What a head predicts from one kind of features, and how it was fitted."""

    predictions: Predictions
    fitted: dict[str, Any]
    layer: Layer | None = None


@dataclass
class ProbeSetup:
    """Sets, labels, encoder and extractors of a probe; makes features and evaluates heads."""

    recipe: Recipe
    probe: Probe
    device: torch.device
    header: Header
    train: Dataset
    val: Dataset
    labeled: Labeled
    pool: Pool
    precision: Precision
    extractors: dict[str, Extractor]
    encoder: MaskedAutoencoder
    source: str
    bad_files: BadFiles
    emit: Emit
    # What reading the sets left out of their samples, by reason, once features are made.
    seen: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def protocol(self) -> str:
        """The name of the protocol; ``settings`` has its numbers."""
        kind = self.probe.kind
        return f"linear/{self.probe.protocol}" if kind == "linear" else kind

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the numbers depend on besides data and weights."""
        probe = self.probe
        if self.probe.trains_heads:
            options = probe.model_dump(mode="json", by_alias=True, include=set(TRAINED))
        else:
            options = getattr(probe, probe.kind).model_dump(mode="json")
        clip, views, data = self.header.clip, probe.views, self.recipe.data
        specs = {"train": data.train, "val": data.val or data.train}
        return {
            "pool": self.pool,
            "norm": self._norm,
            "layer": probe.layer,
            "clip": list(clip),
            "mean": list(self.header.mean),
            "std": list(self.header.std),
            "frames": {
                name: [spec.sampling, spec.stride, spec.rate] for name, spec in specs.items()
            },
            "views": f"{views.clips}x{views.crops}",
            "enlarge": views.enlarge,
            "fit": self.recipe.data.fit,
            "range": self.recipe.data.range_,
            "interpolation": views.interpolation,
            "pixels": [clip[0], *reduced_size(*clip[1:], probe.pixels)],
            "precision": self.precision.name,
            "seed": self.recipe.seed,
            **options,
        }

    @property
    def _norm(self) -> str | None:
        """Where the encoder's last norm stands: a mean of normed tokens is not the normed mean."""
        if self.probe.layer is not None:
            return None
        return "after pooling" if self.probe.trains_heads else "before pooling"

    @cached_property
    def digest(self) -> str:
        """A hash that names the encoder's weights."""
        return digest_of_weights(self.encoder)

    @property
    def at_once(self) -> int:
        """Views that are encoded together."""
        return self.probe.batch.given_per_device or AT_ONCE

    def reader(self, dataset: Dataset, spec: DataSpec, views: Views) -> ViewReader:
        """Make a reader of test views at the encoder's size."""
        return view_reader(
            dataset,
            spec,
            views,
            size=self.header.clip[1:],
            channels=self.header.channels,
            rendering=Rendering.of(self.recipe.data),
        )

    def readers(self) -> tuple[ViewReader, ViewReader]:
        """Make readers of data.train (one centered view) and data.val (all its test views)."""
        data, views = self.recipe.data, self.probe.views
        one = views.model_copy(update={"clips": 1, "crops": 1})
        return (
            self.reader(self.train, data.train, one),
            self.reader(self.val, data.val or data.train, views),
        )

    def make_features(self, kept: Path) -> None:
        """Make the features of both sets that do not exist yet.

        Args:
            kept: folder that they are kept in.

        Raises:
            Interrupted: a signal asked for it; what is made is kept.
            DataError: a sample of data.val cannot be read, or too many of data.train.
            NonFiniteError: features are not finite.
            RecipeError: others are kept there.
            StorageError: they cannot be kept.
        """
        train, val = self.readers()
        # First data.val, where whatever cannot be read ends everything.
        self._make(VAL, val, kept, raise_on_bad)
        bad: list[BadFile] = []

        def count(read: Batch, made: FeatureArrays, name: Name) -> Sequence[BadFile]:
            bad.extend(read.bad)
            return count_bad(self.bad_files)(read, made, name)

        self._make(TRAIN, train, kept, count)
        self.bad_files.add(distributed.gather_if_any(bad), 0)

    def evaluate_cached(self, kept: Path) -> dict[str, ProbeResult]:
        """Fit a head on each kind of the features of data.train, and evaluate it on data.val.

        Raises:
            StorageError: what is kept is damaged.
            NonFiniteError: a score is not finite.
        """
        train_reader, val_reader = self.readers()
        train = self._shards(TRAIN, train_reader, kept).load_all(SHARD_SIZE, len(self.train))
        labels, fits = self.labeled.train[train.rows], {}
        for name in self.extractors:
            began = time.perf_counter()
            with counted(f"fitting on {name}"):
                fits[name] = fit_head(
                    train.features[name][:, 0],
                    labels,
                    self.probe,
                    classes=len(self.labeled.classes),
                    width=self.encoder.backbone.width,
                    seed=self.recipe.seed,
                    device=self.device,
                    emit=self.emit,
                )
            self.emit(Note(f"{name}: fitted in {time.perf_counter() - began:.1f} s"))
        val = self._shards(VAL, val_reader, kept).load_all(SHARD_SIZE, len(self.val))
        self.seen = {TRAIN: dict(train.left_out), VAL: dict(val.left_out)}
        return self._evaluate(fits, val, val_reader)

    def evaluate(
        self, fits: Mapping[str, FittedHead], reader: ViewReader
    ) -> dict[str, ProbeResult]:
        """Evaluate fitted heads on data.val.

        Raises:
            DataError: a sample cannot be read.
            NonFiniteError: features are not finite.
        """
        self.emit(Note(f"{VAL}: features of {len(reader.dataset):,} samples"))
        rows = range(len(reader.dataset))

        def collect() -> FeatureSet:
            own = distributed.share(rows)
            return collect_features(reader, self.extractors, own, self.reading)

        parts = distributed.together(collect)
        val = FeatureSet.concatenate(parts, len(rows)).in_order()
        self.seen[VAL] = dict(val.left_out)
        return self._evaluate(fits, val, reader)

    def _evaluate(
        self, fits: Mapping[str, FittedHead], val: FeatureSet, reader: ViewReader
    ) -> dict[str, ProbeResult]:
        found = {}
        for name, (head, fitted, layer) in fits.items():
            views = val.features[name]
            scores = head(views.reshape(-1, *views.shape[2:])).reshape(*views.shape[:2], -1)
            labels = self.labeled.val[val.rows]
            made = Predictions.from_views(val.rows, self.val, labels, scores, reader.center_index)
            found[name] = ProbeResult(made, fitted, layer)
            self.emit(Note(f"{name}: top-1 {made.top(1):.4f}"))
        model = found[MODEL].predictions
        if not warn_of_accuracy(model.scores, model.labels, self.emit):
            self._warn_of_floor(found)
        return found

    def _warn_of_floor(self, found: Mapping[str, ProbeResult]) -> None:
        """Warn where the encoder is no better than the best of what was not pre-trained, and why.

        By the difference over the same samples and its standard error, as they are paired.
        """
        right = {name: each.predictions.right for name, each in found.items()}
        floors = {name: each for name, each in right.items() if name != MODEL}
        name, floor = max(floors.items(), key=lambda each: float(each[1].mean()))
        apart = right[MODEL].astype(float) - floor
        least = max(SIGMAS * float(apart.std()) / math.sqrt(len(apart)), 1 / len(apart))
        if apart.mean() > least or self.source == SCRATCH:
            return
        text = (
            f"the encoder (top-1 {right[MODEL].mean():.3f}) does not beat {SAID[name]} "
            f"({floor.mean():.3f}) by more than chance: {len(apart):,} samples of data.val show "
            f"differences above {least:.3f} only. What helps: longer pre-training, more samples "
            "(they need no labels), or --from weights of a larger pre-training"
        )
        self.emit(Note(text, warning=True))

    def result(self, judged: Mapping[str, ProbeResult]) -> dict[str, Any]:
        """Return what result.json holds; accuracies are fractions."""
        model = judged[MODEL].predictions
        floor = {name: each.predictions for name, each in judged.items() if name != MODEL}
        return {
            "protocol": self.protocol,
            **model.summary(self.labeled.classes),
            "floor": {name: each.top(1) for name, each in floor.items()},
            "floor_top5": {name: each.top(TOP) for name, each in floor.items()},
            "chance": chance_level(self.labeled.val),
            "settings": self.settings,
            "fitted": {name: each.fitted for name, each in judged.items()},
            "classes": len(self.labeled.classes),
            "train_samples": len(self.train) - self.bad_files.samples,
            "val_samples": len(model.rows),
            "from": self.source,
            "encoder_sha256": self.digest,
        }

    def write_classifier(
        self, path: Path, head: nn.Module, *, norm: Norm, batch_norm: bool, provenance: str
    ) -> None:
        """Write the encoder and a fitted head as a classifier.

        Args:
            path: of the file.
            head: features ``[B, D]`` to logits ``[B, K]``.
            norm: where the encoder's last norm stood, as in ``ClassifierHeader``.
            batch_norm: whether the head begins with one.
            provenance: where the weights come from, in words.

        Raises:
            StorageError: it cannot be written.
        """
        pool: Literal["cls", "mean"] = "cls" if self.pool == "cls" else "mean"
        described = ClassifierHeader(
            kind="multiclass",
            outputs=self.labeled.classes,
            pool=pool,
            norm=norm,
            batch_norm=batch_norm,
        )
        classifier = Classifier.of(self.encoder, head, pool=pool, norm=norm)
        said = {"classifier": described, "source": provenance}
        write_weights(path, classifier_tensors(classifier), self.header.model_copy(update=said))

    @property
    def reading(self) -> Reading:
        """How samples are read and encoded."""
        data, device = self.recipe.data, self.device
        return Reading(device, self.at_once, workers_of(data.workers, device.type), data.timeout)

    def _shards(self, key: str, reader: ViewReader, kept: Path) -> FeatureShards:
        """Open the shards of a set's features, which name all that the features depend on."""
        dataset, size = reader.dataset, reader.views[0].size
        chosen = samples_of(dataset)
        about = {
            "weights": self.source,
            "sha256": self.digest,
            "settings": {key: self.settings[key] for key in FEATURES},
            "data": cache_key(
                dataset,
                reader.spec,
                chosen,
                size=size,
                channels=reader.channels,
                rendering=reader.rendering,
            ),
        }
        return FeatureShards(kept / key, about)

    def _make(self, key: str, reader: ViewReader, kept: Path, on_bad: OnBad) -> None:
        self.emit(Note(f"{key}: features of {len(reader.dataset):,} samples"))
        collect_shards(
            reader,
            self.extractors,
            self._shards(key, reader, kept),
            self.reading,
            size=SHARD_SIZE,
            on_bad=on_bad,
            what=f"{key}: features",
        )


def assemble_probe(
    recipe: Recipe,
    source: str,
    device: torch.device,
    emit: Emit,
    *,
    bad_files_path: Path | None = None,
) -> ProbeSetup:
    """Open data and weights, check the labels, build what is evaluated.

    Args:
        recipe: resolved for the verb.
        source: of weights, as ``--from`` takes it.
        device: where features are made.
        emit: receives notes.
        bad_files_path: where unreadable training files are recorded.

    Raises:
        RecipeError: no probe section, no data.val, or the encoder lacks what the recipe needs.
        WeightsError: the weights are of another model than the recipe's.
        DataError: labels that cannot be evaluated.
    """
    probe, spec = required_probe(recipe)
    data = recipe.data
    train, val = open_sets(recipe, emit)
    assert val is not None  # noqa: S101 - required_probe saw it
    labeled = check_labels(train, val)
    announce_labels(train, labeled, emit)
    _warn_sampling(data.train, spec, emit)
    if source == SCRATCH:
        recipe = with_known_range(recipe, train, emit)
    model, header = load_encoder(source, recipe)
    recipe = with_known_range(recipe, train, emit, header)
    check_head(probe, model.backbone.width)
    pool = auto_pool(probe.pool, model.backbone.prefix_tokens)
    taken: Pool = "tokens" if probe.kind == "attentive" else pool
    precision = Precision.of(probe.precision, device, where="probe.precision")
    # Without training, the model is its own random baseline.
    random_encoder = model if source == SCRATCH else untrained(header, recipe.seed)
    return ProbeSetup(
        recipe=recipe,
        probe=probe,
        device=device,
        header=header,
        train=train,
        val=val,
        labeled=labeled,
        pool=taken,
        precision=precision,
        extractors=_extractors(
            probe, header, model.to(device), random_encoder.to(device), taken, precision
        ),
        encoder=model,
        source=source,
        bad_files=BadFiles(
            bad_files_path,
            len(train),
            data.train.max_bad_fraction,
            writes=distributed.is_first(),
        ),
        emit=emit,
    )


def _warn_sampling(train: DataSpec, val: DataSpec, emit: Emit) -> None:
    """Warn where training and test clips are sampled differently: that is seldom meant."""
    if (train.stride, train.sampling, train.rate) != (val.stride, val.sampling, val.rate):
        text = "data.train and data.val sample frames differently"
        how = f"{train.sampling}, stride {train.stride} and {val.sampling}, stride {val.stride}"
        emit(Note(f"{text}: {how}", warning=True))


def _extractors(
    probe: Probe,
    header: Header,
    model: MaskedAutoencoder,
    random_encoder: MaskedAutoencoder,
    pool: Pool,
    precision: Precision,
) -> dict[str, Extractor]:
    """Build what is evaluated, by name."""
    # The paper's protocol exports encoder and head as a classifier: features are a classifier's.
    if probe.trains_heads and probe.layer is not None:
        msg = "probe.layer cannot be used with protocol: paper, which takes the encoder's output"
        raise RecipeError(msg, where="probe.layer", hint="probe.protocol=cached, or leave it out")

    def features_of(encoder: MaskedAutoencoder) -> Features:
        return Features(encoder, pool, probe.layer, precision, pool_first=probe.trains_heads)

    features = features_of(model)
    random = features if random_encoder is model else features_of(random_encoder)
    tokens = probe.kind == "attentive"
    extractors: dict[str, Extractor] = {
        MODEL: features,
        RANDOM: random,
        PIXELS: PixelBaseline(probe.pixels, model.normalize, tokens=tokens),
    }
    if header.clip[0] > 1:
        extractors[DIFFERENCES] = FrameDifferenceBaseline(
            probe.pixels, model.normalize, tokens=tokens
        )
    return extractors


def required_probe(recipe: Recipe) -> tuple[Probe, DataSpec]:
    """Return the probe section and data.val.

    Raises:
        RecipeError: one of them is missing.
    """
    if recipe.probe is None:
        raise RecipeError("the recipe has no probe section", where="probe", hint="add `probe:`")
    if recipe.data.val is None:
        msg = "a probe is judged on data.val, and there is none"
        hint = "'data.val={split: 0.1}' holds a tenth of data.train out; or data.val.path=OTHERS"
        raise RecipeError(msg, where="data.val", hint=hint)
    return recipe.probe, recipe.data.val
