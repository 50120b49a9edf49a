"""A probe put together from a resolved recipe: frozen features, a judge fitted on them, a verdict.

What is judged is always three things by one protocol: the encoder, the same encoder untrained, and
raw pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from maekit.data.bad_files import BadFiles
from maekit.engine.events import Emit, Note
from maekit.engine.feed import open_dataset, workers_of
from maekit.engine.precision import Precision
from maekit.errors import RecipeError
from maekit.evaluate.attentive import fit_attentive
from maekit.evaluate.encoder import load_encoder
from maekit.evaluate.features import Collected, Features, auto_pool, collect
from maekit.evaluate.floor import Pixels, untrained
from maekit.evaluate.knn import NearestNeighbours
from maekit.evaluate.labels import (
    Labelled,
    chance_level,
    check_labels,
    tell_labels,
    warn_at_chance,
)
from maekit.evaluate.linear import fit_linear
from maekit.evaluate.multiview import TOP, Predictions
from maekit.evaluate.views import ViewReader, view_reader

if TYPE_CHECKING:
    from pathlib import Path

    from maekit.contracts import Dataset
    from maekit.evaluate.features import Featurise, Pool
    from maekit.model import MaskedAutoencoder
    from maekit.recipe.probe import Probe
    from maekit.recipe.schema import DataSpec, Recipe
    from maekit.recipe.views import Views
    from maekit.weights.header import Header

MODEL, RANDOM, PIXELS = "model", "random", "pixels"  # what is judged
AT_ONCE = 64  # views that are encoded together, where the recipe does not say
# What the numbers of a trained probe depend on.
TRAINED = ("epochs", "steps", "samples", "warmup", "batch", "optimizer", "augment", "clip_grad")
_SECONDS = 10.0  # between two words on how far reading is

Judge = Callable[[np.ndarray], np.ndarray]  # features [m, ...] to scores [m, K]
Fit = tuple[Judge, dict[str, Any]]  # and how it was fitted


@dataclass(frozen=True)
class Judged:
    """What a judge made of one kind of features, and how it was fitted."""

    predictions: Predictions
    fitted: dict[str, Any]


@dataclass
class Probing:
    """All of a probe."""

    recipe: Recipe
    probe: Probe
    device: torch.device
    header: Header
    train: Dataset
    val: Dataset
    labelled: Labelled
    pool: Pool
    ways: dict[str, Featurise]
    encoder: MaskedAutoencoder
    source: str
    ledger: BadFiles
    emit: Emit

    @property
    def protocol(self) -> str:
        """Names the way of judging; ``settings`` has its numbers."""
        kind = self.probe.kind
        return f"linear/{self.probe.protocol}" if kind == "linear" else kind

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the numbers depend on, beside data and weights."""
        probe = self.probe
        if self.trains:
            options = probe.model_dump(mode="json", by_alias=True, include=set(TRAINED))
        else:
            options = getattr(probe, probe.kind).model_dump(mode="json")
        height, width = Pixels(probe.pixels).size(*self.header.clip[1:])
        return {
            "pool": self.pool,
            "layer": probe.layer,
            "clip": list(self.header.clip),
            "views": f"{probe.views.clips}x{probe.views.crops}",
            "pixels": [self.header.clip[0], height, width],
            **options,
        }

    @property
    def trains(self) -> bool:
        """Whether heads are trained on augmented crops, not fitted on cached features."""
        return self.probe.kind == "linear" and self.probe.protocol == "paper"

    @property
    def at_once(self) -> int:
        """Views that are encoded together."""
        return self.probe.batch.per_device or AT_ONCE

    def reader(self, dataset: Dataset, spec: DataSpec, views: Views) -> ViewReader:
        """Reads test views at the encoder's size."""
        return view_reader(
            dataset,
            spec,
            views,
            size=self.header.clip[1:],
            channels=self.header.channels,
            float_ok=self.recipe.data.stats is not None,
        )

    def readers(self) -> tuple[ViewReader, ViewReader]:
        """Of data.train (one centred view) and data.val (as many as are judged)."""
        data, views = self.recipe.data, self.probe.views
        one = views.model_copy(update={"clips": 1, "crops": 1})
        return (
            self.reader(self.train, data.train, one),
            self.reader(self.val, data.val or data.train, views),
        )

    def run(self) -> dict[str, Judged]:
        """Collect features, fit a judge on each kind, and let it judge data.val.

        Raises:
            DataError: a sample of data.val cannot be read, or too many of data.train.
        """
        train_reader, val_reader = self.readers()
        train = self._collected(train_reader, "data.train", self.ledger)
        labels, fits = self.labelled.train[train.rows], {}
        for name in self.ways:
            began = time.perf_counter()
            fits[name] = self._fitted(train.features[name][:, 0], labels)
            self.emit(Note(f"{name}: fitted in {time.perf_counter() - began:.1f} s"))
        return self.judged(fits, val_reader)

    def judged(self, fits: Mapping[str, Fit], reader: ViewReader) -> dict[str, Judged]:
        """Let fitted judges judge data.val.

        Raises:
            DataError: a sample cannot be read.
        """
        val = self._collected(reader, "data.val", None)
        found = {}
        for name, (judge, fitted) in fits.items():
            views = val.features[name]
            scores = judge(views.reshape(-1, *views.shape[2:])).reshape(*views.shape[:2], -1)
            labels = self.labelled.val[val.rows]
            made = Predictions.averaged(val.rows, self.val, labels, scores, reader.middle)
            found[name] = Judged(made, fitted)
            self.emit(Note(f"{name}: top-1 {made.top(1):.4f}"))
        model = found[MODEL].predictions
        warn_at_chance(model.top(1), model.labels, self.emit)
        return found

    def result(self, judged: Mapping[str, Judged]) -> dict[str, Any]:
        """What stands in result.json; accuracies are fractions."""
        model = judged[MODEL].predictions
        floor = {name: judged[name].predictions for name in (RANDOM, PIXELS)}
        return {
            "protocol": self.protocol,
            **model.summary(self.labelled.classes),
            "floor": {name: each.top(1) for name, each in floor.items()},
            "floor_top5": {name: each.top(TOP) for name, each in floor.items()},
            "chance": chance_level(self.labelled.val),
            "settings": self.settings,
            "fitted": {name: each.fitted for name, each in judged.items()},
            "classes": len(self.labelled.classes),
            "train_samples": len(self.train) - len(self.ledger),
            "val_samples": len(model.rows),
            "from": self.source,
        }

    def _collected(self, reader: ViewReader, key: str, ledger: BadFiles | None) -> Collected:
        self.emit(Note(f"{key}: features of {len(reader.dataset):,} samples"))
        return collect(
            reader,
            self.ways,
            device=self.device,
            batch=self.at_once,
            workers=workers_of(self.recipe.data.workers, self.device.type),
            timeout=self.recipe.data.timeout,
            ledger=ledger,
            told=_Progress(key, len(reader.dataset), self.emit),
        )

    def _fitted(self, features: np.ndarray, labels: np.ndarray) -> Fit:
        probe, seed = self.probe, self.recipe.seed
        classes = len(self.labelled.classes)
        if probe.kind == "linear":
            found = fit_linear(features, labels, classes, probe.linear, seed)
            if not found.converged:
                text = f"L-BFGS did not converge in {probe.linear.iterations} iterations"
                self.emit(Note(f"{text}: raise probe.linear.iterations", warning=True))
            accuracies = {f"{c:g}": share for c, share in found.accuracies.items()}
            fitted = {"strength": found.strength, "accuracies": accuracies}
            return found.probabilities, fitted
        target = torch.from_numpy(labels)
        if probe.kind == "knn":
            nearest = NearestNeighbours(
                torch.from_numpy(features).to(self.device),
                target.to(self.device),
                classes,
                k=probe.knn.k,
                temperature=probe.knn.temperature,
            )
            return self.on_device(nearest.probabilities), {"voters": nearest.k}
        losses: list[float] = []
        head = fit_attentive(
            torch.from_numpy(features),
            target,
            classes,
            probe.attentive,
            width=self.encoder.backbone.width,
            seed=seed,
            device=self.device,
            told=lambda _, loss: losses.append(loss),
        )
        fitted = {"loss_first": losses[0], "loss_last": losses[-1]}
        return self.on_device(head.probabilities), fitted

    def on_device(self, judge: Callable[[torch.Tensor], torch.Tensor]) -> Judge:
        return lambda x: judge(torch.from_numpy(x).to(self.device)).cpu().numpy()


class _Progress:
    """Says how far reading is, now and then."""

    def __init__(self, key: str, total: int, emit: Emit) -> None:
        self.key, self.total, self.emit = key, total, emit
        self.told = time.monotonic()

    def __call__(self, done: int) -> None:
        if time.monotonic() - self.told > _SECONDS:
            self.told = time.monotonic()
            self.emit(Note(f"{self.key}: {done:,} of {self.total:,}"))


def assemble_probe(
    recipe: Recipe,
    source: str,
    device: torch.device,
    emit: Emit,
    *,
    bad_files: Path | None = None,
) -> Probing:
    """Open data and weights, look at the labels, build what is judged.

    Args:
        recipe: resolved for the verb.
        source: of weights, as ``--from`` takes it.
        bad_files: where unreadable training files are recorded.

    Raises:
        RecipeError: no probe section, no data.val, or the encoder has not what is asked of it.
        WeightsError: the weights are of another model than the recipe's.
        DataError: labels that cannot be judged.
    """
    probe, spec = required_probe(recipe)
    data = recipe.data
    train, val = open_dataset(data.train, "data.train"), open_dataset(spec, "data.val")
    labelled = check_labels(train, val)
    tell_labels(train, labelled, emit)
    model, header = load_encoder(source, recipe)
    pool = auto_pool(probe.pool, model.backbone.prefix_tokens)
    taken: Pool = "tokens" if probe.kind == "attentive" else pool
    return Probing(
        recipe=recipe,
        probe=probe,
        device=device,
        header=header,
        train=train,
        val=val,
        labelled=labelled,
        pool=taken,
        ways=_ways(probe, model, header, taken, recipe.seed, device),
        encoder=model,
        source=source,
        ledger=BadFiles(bad_files, len(train), data.train.max_bad_fraction),
        emit=emit,
    )


def _ways(
    probe: Probe,
    model: MaskedAutoencoder,
    header: Header,
    pool: Pool,
    seed: int,
    device: torch.device,
) -> dict[str, Featurise]:
    """What is judged, by name."""
    if probe.layer is not None and probe.kind == "linear" and probe.protocol == "paper":
        msg = "the paper's protocol is of the encoder's output, and probe.layer is of a block's"
        raise RecipeError(msg, where="probe.layer", hint="probe.protocol=cached, or leave it out")
    precision = Precision.of(probe.precision, device, where="probe.precision")
    encoders = {MODEL: model, RANDOM: untrained(header, seed)}
    ways: dict[str, Featurise] = {
        name: Features(encoder.to(device), pool, probe.layer, precision)
        for name, encoder in encoders.items()
    }
    return ways | {PIXELS: Pixels(probe.pixels, tokens=probe.kind == "attentive")}


def required_probe(recipe: Recipe) -> tuple[Probe, DataSpec]:
    """The probe section, and the set that it is judged on.

    Raises:
        RecipeError: one of them is missing.
    """
    if recipe.probe is None:
        raise RecipeError("the recipe has no probe section", where="probe", hint="add `probe:`")
    if recipe.data.val is None:
        msg = "a probe is judged on data.val, and there is none"
        hint = "data.val.name=images data.val.path=FOLDER (or a list with labels)"
        raise RecipeError(msg, where="data.val", hint=hint)
    return recipe.probe, recipe.data.val
