"""A probe while pre-training: the same labeled samples classified again and again.

The held-out masked loss says little of what a representation is worth; this does, cheaply.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from maekit.data.order import evenly
from maekit.data.rendering import Rendering
from maekit.engine import distributed
from maekit.engine.events import Emit, Measured, Note
from maekit.engine.loop import Periodic
from maekit.engine.step import eval_mode
from maekit.errors import DataError
from maekit.evaluate.features import Features, auto_pool
from maekit.evaluate.labels import chance_level, check_labels
from maekit.evaluate.predictions import Reading, batches_of, run_extractors, top_k
from maekit.evaluate.probe_heads import NearestNeighbors, Ridge
from maekit.evaluate.views import ViewReader, view_reader
from maekit.recipe.sections import Views

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.contracts import Dataset
    from maekit.data.batch import BadFile, Batch
    from maekit.engine.loop import TrainState
    from maekit.engine.pretrain import PretrainJob
    from maekit.recipe.probe import OnlineProbe as OnlineProbeOptions
    from maekit.recipe.schema import DataSpec

NAME = "probe"  # of what is measured, in metrics.jsonl and TensorBoard
TEMPERATURE = 0.07  # of votes, as DINO
KEPT_BYTES = 2**29  # of clips that are kept in memory; more are read anew each time
_BATCH = 64


class LabeledSubset:
    """Fixed samples of a set, evenly spaced, with their labels.

    A sample that cannot be read is left out with a warning: here only the curve counts, and a run
    must not end for it.
    """

    def __init__(
        self,
        reader: ViewReader,
        labels: np.ndarray,
        samples: int,
        reading: Reading,
        emit: Emit,
    ) -> None:
        self.rows = evenly(len(reader.dataset), samples)
        self.labels = labels
        self._reader = reader
        self._reading = reading
        self._emit: Emit | None = emit  # until unreadable samples were reported
        size = int(np.prod(reader.layout.views[0])) * len(self.rows)
        self._kept: list[Batch] | None = list(self._read()) if size <= KEPT_BYTES else None

    def _read(self) -> Iterator[Batch]:
        keys = distributed.share(batches_of(self.rows, self._reading.batch))
        with self._reading.loader(self._reader, keys) as loader:
            yield from loader

    def features(self, extractor: Features) -> tuple[Tensor, Tensor]:
        """Make features ``[n, D]`` and labels ``[n]`` of what can be read, on the device.

        Raises:
            DataError: nothing can.
        """
        device = self._reading.device

        def make() -> list[tuple[list[int], Tensor, Sequence[BadFile]]]:
            found: list[tuple[list[int], Tensor, Sequence[BadFile]]] = []
            batches = self._read() if self._kept is None else self._kept
            for batch, made in run_extractors(batches, {"features": extractor}, device, views=1):
                good = torch.from_numpy(batch.weight > 0).to(device)
                features = made["features"][good, 0]
                bad = {each.index for each in batch.bad}
                rows = [key.index for key in batch.keys if key.index not in bad]
                found.append((rows, features if alone else features.cpu(), batch.bad))
            return found

        alone = distributed.size() == 1
        parts = sorted(
            (part for of_rank in distributed.together(make) for part in of_rank),
            key=lambda part: part[0],
        )
        self._announce_unread([each for _, _, bad in parts for each in bad])
        labels = [int(self.labels[row]) for rows, _, _ in parts for row in rows]
        features = torch.cat([features.to(device) for _, features, _ in parts])
        return features, torch.tensor(labels, device=device)

    def _announce_unread(self, unread: Sequence[BadFile]) -> None:
        """Say once what the probe leaves out."""
        if len(unread) == len(self.rows):
            what = f"none of {len(unread)} samples can be read: {unread[0].reason}"
            hint = "repair the files, or ~pretrain.online_probe"
            raise DataError(what, where=unread[0].file, hint=hint)
        if unread and self._emit is not None:
            text = f"the online probe leaves out {len(unread)} of {len(self.rows)} samples"
            self._emit(Note(f"{text}: {unread[0].file}: {unread[0].reason}", warning=True))
            self._emit = None


class OnlineProbe:
    """Evaluates the encoder as it is every so many steps, and remembers when it was best.

    Args:
        job: whose encoder is evaluated.
        options: the recipe's.
        train: what the head is fitted on.
        val: what it is evaluated on.
        classes: K.
    """

    def __init__(
        self,
        job: PretrainJob,
        options: OnlineProbeOptions,
        train: LabeledSubset,
        val: LabeledSubset,
        classes: int,
    ) -> None:
        self.job = job
        self.options = options
        self.train, self.val = train, val
        self.classes = classes

    def __call__(self, state: TrainState) -> None:
        """Measure; if it is the best so far, the checkpoint of this step is kept as such."""
        values = self.measure()
        state.extra[NAME] = values
        # An untrained encoder is worth no checkpoint.
        if state.step and (self.job.best is None or values["top1"] > self.job.best["top1"]):
            state.extra["best"] = values | {"step": state.step}
        self.job.emit(Measured(state.step, NAME, dict(values)))

    def measure(self) -> dict[str, float]:
        """Return ``top1`` as a fraction, and ``chance``; the model's mode stays as it was."""
        model = self.job.model
        pool = auto_pool(self.options.pool, model.backbone.prefix_tokens)
        with eval_mode(model):
            extractor = Features(model, pool, None, self.job.precision)
            features, labels = self.train.features(extractor)
            queries, val_labels = self.val.features(extractor)
        scores = self._scores(features, labels, queries).cpu().numpy()
        right = val_labels.cpu().numpy()
        return {"top1": top_k(scores, right, 1), "chance": chance_level(right)}

    def _scores(self, features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        if self.options.kind == "ridge":
            return Ridge(features, labels, self.classes, self.options.ridge).scores(queries)
        head = NearestNeighbors(
            features, labels, self.classes, k=self.options.k, temperature=TEMPERATURE
        )
        return head.probabilities(queries)


def online_probe(job: PretrainJob) -> Sequence[Periodic]:
    """Build the recipe's online probe; none without an option for it, or without labels."""
    options = job.section.online_probe
    if options is None:
        return ()
    data = job.recipe.data
    if job.val is None or data.val is None:
        job.emit(Note("no data.val: no online probe"))
        return ()
    try:
        labeled = check_labels(job.train, job.val)
    except DataError as error:
        job.emit(Note(f"no online probe: {error.where}: {error.what}"))
        return ()

    def subset(dataset: Dataset, spec: DataSpec, labels: np.ndarray) -> LabeledSubset:
        reader = view_reader(
            dataset,
            spec,
            Views(interpolation=job.section.augment.interpolation),
            size=data.height_width,
            channels=data.channels,
            rendering=Rendering.of(data),
        )
        reading = Reading(job.device, _BATCH, job.workers, data.timeout)
        return LabeledSubset(reader, labels, options.samples, reading, job.emit)

    train = subset(job.train, data.train, labeled.train)
    val = subset(job.val, data.val, labeled.val)
    online = OnlineProbe(job, options, train, val, len(labeled.classes))
    return (Periodic(options.every, online),)
