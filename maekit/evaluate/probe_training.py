"""The papers' linear probe: batch norm and a linear layer, trained on augmented crops.

By LARS, as MAE's main_linprobe.py, or by SGD, as VideoMAE's table 11, which says nothing of a batch
norm: the head is the same. Everything but the head is frozen, batch norm has no scale and shift and
sees the batch's own statistics, crops are TensorFlow's. The heads (the encoder's, that of an
untrained one, those of raw pixels) are trained on the same crops in one pass; no parameter of one
meets another, so that each is trained as it would be alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from maekit.contracts import View
from maekit.data.order import Order, Stream
from maekit.data.reader import SampleReader
from maekit.data.rendering import Rendering
from maekit.data.rng import seeded
from maekit.engine import distributed
from maekit.engine.job import Job
from maekit.engine.left_out import KEY as LEFT_OUT
from maekit.engine.loop import Periodic, Weighed
from maekit.engine.optim import LARS, make_sgd, parameter_groups
from maekit.engine.run_folder import PREDICTIONS, plain
from maekit.engine.schedule import total_steps
from maekit.engine.step import eval_mode, send, to_device_float01
from maekit.errors import RecipeError
from maekit.evaluate.classifier import make_head
from maekit.evaluate.encoder import weights_or_newest
from maekit.evaluate.features import Features
from maekit.evaluate.probe import (
    AT_ONCE,
    MODEL,
    ProbeResult,
    ProbeSetup,
    assemble_probe,
    required_probe,
)
from maekit.evaluate.probe_heads import FittedHead, on_device
from maekit.recipe.probe import Lars
from maekit.stop import check
from maekit.weights.header import FileHeader
from maekit.weights.safetensors_io import load_exactly

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy as np

    from maekit.data.batch import Batch
    from maekit.engine.events import Emit
    from maekit.engine.loop import TrainState
    from maekit.recipe.probe import Probe, Sgd
    from maekit.recipe.schema import Recipe
    from maekit.weights.checkpoints import CheckpointOnDisk

VERB = "probe"
HEAD_STD = 0.01  # main_linprobe.py:218
_LEAST = 2  # samples that have batch statistics
FEWEST_UPDATES = 50  # that a derived budget must have: a head that LARS moved less knows nothing


class Heads(nn.Module):
    """A head for each kind of features."""

    def __init__(self, widths: dict[str, int], classes: int, seed: int) -> None:
        super().__init__()
        self.of = nn.ModuleDict()
        for name, width in widths.items():
            # All draw alike, so that model and untrained encoder begin with the same head.
            with seeded(seed, purpose=f"probe/head/{MODEL}"):
                self.of[name] = make_head(width, classes, init_std=HEAD_STD, batch_norm=True)

    @torch.inference_mode()
    def probabilities(self, name: str, features: Tensor) -> Tensor:
        """``[m, D]`` to ``[m, K]``, by the statistics that training kept."""
        self.eval()
        scores: Tensor = self.of[name](features).softmax(dim=-1)
        return scores


class ProbeStep:
    """Encode, and compare what each head says."""

    def __init__(self, setup: ProbeSetup, heads: Heads) -> None:
        self.setup = setup
        self.heads = heads
        self.labels = torch.from_numpy(setup.labeled.train)

    def weigh(self, batch: Batch) -> Weighed:
        """Count the rows that are good; too few for a batch norm count as none."""
        good, alone = int((batch.weight > 0).sum()), distributed.size() == 1
        return Weighed(batch, float(0 if alone and good < _LEAST else good))

    def loss(self, weighed: Weighed) -> Tensor:
        """Sum all heads' cross-entropies over good rows."""
        batch, device = weighed.batch, self.setup.device
        if not weighed.weight and distributed.size() == 1:
            return sum(p.sum() * 0 for p in self.heads.parameters())  # type: ignore[return-value]
        good = torch.from_numpy(batch.weight > 0)
        labels = send(self.labels[[key.index for key in batch.keys]][good], device)
        total = torch.zeros((), device=device)
        for name, features in self._features(batch.views[0][good.numpy()]).items():
            logits = self.heads.of[name](features)
            total = total + functional.cross_entropy(logits, labels, reduction="sum")
        return total

    def _features(self, clips: np.ndarray) -> dict[str, Tensor]:
        """Encode clips ``[m, T, H, W, C]``, some at once: only the heads need the whole batch."""
        made: dict[str, list[Tensor]] = {name: [] for name in self.setup.extractors}
        for first in range(0, max(1, len(clips)), AT_ONCE):
            check()
            pixels = to_device_float01(clips[first : first + AT_ONCE], self.setup.device)
            for name, extractor in self.setup.extractors.items():
                # A copy, as autograd keeps nothing that was made without it.
                made[name].append(extractor(pixels).clone())
        return {name: torch.cat(parts) for name, parts in made.items()}


class LinearProbeJob(Job):
    """Train linear heads by the paper's protocol, on features of a frozen encoder."""

    verb = VERB
    section: Probe
    model: Heads
    judged: dict[str, ProbeResult] | None = None

    def __init__(
        self,
        recipe: Recipe,
        device: torch.device,
        emit: Emit,
        *,
        source: str | None = None,
        checkpoint: CheckpointOnDisk | None = None,
        bad_files_path: Path | None = None,
    ) -> None:
        probe = required_probe(recipe)[0].with_budget()
        recipe = recipe.model_copy(update={"probe": probe})
        if checkpoint is not None:
            source = str(checkpoint.record.extra["from"])
        else:
            source = self.find_source(recipe, source, emit)
        super().__init__(recipe, device, emit, bad_files_path=bad_files_path)
        if checkpoint is None:
            _refuse_few_updates(probe, len(self.train), self.budget, self.split.effective)
        self.setup = assemble_probe(recipe, source, device, emit)
        self.recipe = self.setup.recipe
        self.setup.bad_files = self.bad_files
        widths, classes = _widths(self.setup), len(self.setup.labeled.classes)
        self.model = Heads(widths, classes, recipe.seed).to(device)
        self.state = self.initial_state(self.model, _optimizer(self.model, probe.optimizer))
        self.state.extra["from"] = source
        self.reader = self._train_reader()
        self.step = ProbeStep(self.setup, self.model)

    @classmethod
    def find_source(cls, recipe: Recipe, requested: str | None, emit: Emit) -> str:
        """Return the requested weights, else the recipe's newest finished pre-training."""
        return weights_or_newest(recipe, requested, emit)

    def _train_reader(self) -> SampleReader:
        data = self.recipe.data
        return SampleReader(
            self.train,
            spec=data.train,
            augment=self.section.augment,
            views=(View("clip", self.setup.header.clip[1:]),),
            channels=data.channels,
            seed=self.recipe.seed,
            purpose=VERB,
            rendering=Rendering.of(data),
        )

    def sizes(self) -> dict[str, int]:
        """Return the tokens of a sample and the classes."""
        tokens, classes = self.setup.encoder.grid.tokens, len(self.setup.labeled.classes)
        return {"tokens": tokens, "classes": classes}

    def size_row(self) -> tuple[str, str]:
        """Return the same for people."""
        sizes = self.sizes()
        return "tokens", f"{sizes['tokens']} of a frozen encoder; {sizes['classes']} classes"

    def resident(self) -> Iterable[Tensor]:
        """Return heads and encoders, the untrained one included."""
        yield from super().resident()
        for extractor in self.setup.extractors.values():
            if isinstance(extractor, Features):
                yield from (*extractor.model.parameters(), *extractor.model.buffers())

    @property
    def kept_per_sample(self) -> int:
        """Features, normalized ones, and their gradients' like, of all heads; float32."""
        return 3 * 4 * sum(_widths(self.setup).values())

    @property
    def encoded_at_once(self) -> int:
        """Only so many clips are encoded at once; the heads see the whole micro-batch."""
        return min(AT_ONCE, self.split.per_device)

    def tensors(self) -> dict[str, Tensor]:
        """Return the heads; the encoder never changes."""
        return self.model.state_dict()

    def load(self, tensors: dict[str, Tensor], where: str) -> None:
        """Put a checkpoint's heads in place."""
        load_exactly(self.model, tensors, where)

    def described(self) -> FileHeader:
        """Return the header of a checkpoint."""
        return FileHeader(kind=VERB, source=self.provenance)

    def measures(self) -> list[Periodic]:
        """Judge data.val at the end."""
        return [Periodic(self.state.schedule.steps, self.judge, at_start=False)]

    def judge(self, state: TrainState) -> None:
        """Judge data.val by every head."""
        heads = self.model

        def of(name: str) -> FittedHead:
            judge = on_device(lambda x: heads.probabilities(name, x), self.setup.device)
            return FittedHead(judge, {})

        fits = {name: of(name) for name in self.setup.extractors}
        with eval_mode(heads):
            self.judged = self.setup.evaluate(fits, self.setup.readers()[1])
        state.extra["judged"] = plain(self.setup.result(self.judged))
        state.extra.setdefault(LEFT_OUT, {}).update(self.setup.seen)

    def export(self, path: Path) -> None:
        """Write encoder and head as a classifier, and its predictions for data.val."""
        if self.judged is None:  # killed in an earlier run, right after its last checkpoint
            self.judge(self.state)
        assert self.judged is not None  # noqa: S101 - it was just made
        found = self.judged[MODEL].predictions

        def write() -> None:
            self.setup.write_classifier(
                path,
                self.model.of[MODEL],
                norm="pretrained",
                batch_norm=True,
                provenance=self.provenance,
            )
            found.write(path.with_name(PREDICTIONS))

        distributed.on_first(write)

    def result(self) -> dict[str, Any]:
        """Return what data.val showed."""
        judged: dict[str, Any] = self.state.extra.get("judged") or {}
        return judged


def _refuse_few_updates(probe: Probe, samples: int, updates: int, batch: int) -> None:
    """Refuse the paper's batch over a set that it makes only a few updates of.

    Raises:
        RecipeError: says what to set instead.
    """
    if updates >= FEWEST_UPDATES or probe.steps is not None:  # who says steps has counted them
        return
    amount = f"{probe.samples:,} samples" if probe.samples else f"{probe.epochs:g} epoch(s)"
    msg = (
        f"the paper's protocol would make {updates} update{'s' * (updates != 1)} of {batch:,} "
        f"samples in {amount} of data.train ({samples:,} samples), and needs {FEWEST_UPDATES}"
    )
    hint = "probe.protocol=cached, which is exact for small sets"
    smaller = (1 << power for power in range(batch.bit_length() - 1, 2, -1))
    enough = (each for each in smaller if _updates(probe, samples, each) >= FEWEST_UPDATES)
    fitting = next(enough, None)
    if fitting is not None:
        hint += f"; or probe.batch.global={fitting}"
    raise RecipeError(msg, where="probe.batch.global", hint=hint)


def _updates(probe: Probe, samples: int, batch: int) -> int:
    """Return the budget in updates of another batch."""
    return total_steps(
        epochs=probe.epochs,
        steps=None,
        samples=probe.samples,
        batch=batch,
        per_epoch=Stream(Order(samples, 0), batch).steps_per_epoch,
    )


def _widths(setup: ProbeSetup) -> dict[str, int]:
    """How wide each kind of features is, from a blank clip."""
    shape = (2, setup.header.channels, *setup.header.clip)
    blank = torch.zeros(shape, device=setup.device)
    return {name: extractor(blank).shape[1] for name, extractor in setup.extractors.items()}


def _optimizer(heads: Heads, options: Lars | Sgd) -> torch.optim.Optimizer:
    groups = parameter_groups(heads.named_parameters(), options.weight_decay)
    if isinstance(options, Lars):
        return LARS(groups, momentum=options.momentum, trust=options.trust)
    return make_sgd(groups, options.momentum)
