"""What fine-tuning trains and reads: the classifier, optimizer groups, the reader, the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from maekit.contracts import View
from maekit.data.reader import SampleReader
from maekit.data.rendering import Rendering
from maekit.data.rng import seeded
from maekit.data.transform import Transform
from maekit.engine.loop import Weighed
from maekit.engine.optim import layer_groups
from maekit.engine.step import send, to_device_float01
from maekit.errors import RecipeError
from maekit.evaluate.augment import RAND_AUGMENT, Mixup, RandomErase, rand_augment
from maekit.evaluate.classifier import (
    ENCODER,
    HEAD_STD,
    Classifier,
    Headed,
    freeze,
    make_head,
)
from maekit.evaluate.encoder import untrained_encoder
from maekit.evaluate.labels import LabelTable, Task
from maekit.layers import Statistics
from maekit.weights.header import ClassifierHeader, Header

if TYPE_CHECKING:
    from torch import nn

    from maekit.data.batch import Batch
    from maekit.data.boxes import BoxDraw
    from maekit.engine.job import Job
    from maekit.engine.precision import Precision
    from maekit.model import MaskedAutoencoder
    from maekit.recipe.finetune import Finetune
    from maekit.recipe.schema import Recipe

VERB = "finetune"
GRAY = 128 / 255


def make_classifier(
    encoder: MaskedAutoencoder, header: Header, options: Finetune, task: Task, seed: int
) -> tuple[Classifier, Header]:
    """Put a fresh head on an encoder and freeze as the recipe says; return it with its header."""
    linear = fresh_head(encoder, options, len(task.outputs), seed)
    model = Classifier.of(encoder, linear, pool=options.pool, norm=options.norm)
    described = ClassifierHeader(
        kind=task.kind,
        outputs=task.outputs,
        pool=options.pool,
        norm=options.norm,
        dropout=options.head.dropout,
    )
    return model, set_trained(model, header, options, described)


def fresh_head(
    encoder: MaskedAutoencoder, options: Finetune, outputs: int, seed: int
) -> nn.Sequential:
    """Make the recipe's head for an encoder's features."""
    head = options.head
    with seeded(seed, purpose="head"):
        return make_head(
            encoder.backbone.width,
            outputs,
            dropout=head.dropout,
            init_std=head.init_std or HEAD_STD,
            init_scale=head.init_scale,
        )


def set_trained(
    model: Headed, header: Header, options: Finetune, described: ClassifierHeader
) -> Header:
    """Freeze what the recipe does not train, and return the header of what there is now."""
    placed = model.backbone.train_positions(options.positions == "trainable")
    backbone = header.backbone.with_options(header.backbone.options.model_copy(update=placed))
    model.frozen = freeze(model, options.blocks)
    changed = {"backbone": backbone, "classifier": described, "grid": model.grid}
    return header.model_copy(update=changed)


def groups_of(model: Headed, options: Finetune) -> list[dict[str, Any]]:
    """Group parameters for the optimizer: by layer, and by weight decay."""
    backbone = model.backbone
    depth = len(backbone.blocks())

    def layer_of(name: str) -> int:
        inside = name.startswith(ENCODER)
        return backbone.layer_of(name.removeprefix(ENCODER)) if inside else depth + 1

    return layer_groups(
        model.named_parameters(),
        options.optimizer.weight_decay,
        [f"{ENCODER}{name}" for name in backbone.no_decay()],
        layer_of=layer_of,
        depth=depth,
        decay=options.layer_decay,
    )


def train_reader(
    job: Job, options: Finetune, encoder: MaskedAutoencoder, boxes: BoxDraw | None = None
) -> SampleReader:
    """Make a reader of augmented training samples; their boxes, if any, are drawn as it says."""
    recipe, transform = job.recipe, None
    if options.rand_augment is not None:
        size, mean = recipe.data.height_width, encoder.statistics.mean
        if options.rand_augment_fill == "gray":
            mean = (GRAY,) * len(mean)
        settings = {"policy": options.rand_augment, "size": size, "mean": mean}
        # Here first, where what timm does not understand is an error of the recipe.
        rand_augment(policy=options.rand_augment, size=size, mean=mean)
        purpose = f"{VERB}/rand-augment"
        transform = Transform(RAND_AUGMENT, settings, options.rand_augment_on, recipe.seed, purpose)
    return SampleReader(
        job.train,
        spec=recipe.data.train,
        augment=options.augment,
        views=(View("clip", recipe.data.height_width),),
        channels=recipe.data.channels,
        seed=recipe.seed,
        purpose=VERB,
        repeats=options.repeats,
        repeat_from=options.repeat_from,
        rendering=Rendering.of(recipe.data),
        transform=transform,
        boxes=boxes,
    )


def make_step(job: Job, options: Finetune, model: Classifier, task: Task) -> FinetuneStep:
    """Build the step, from a micro-batch to the loss.

    Raises:
        RecipeError: its only row has no other to be mixed with.
    """
    seed, repeats = job.recipe.seed, options.repeats
    mixing = Mixup(
        mixup=options.mixup,
        cutmix=options.cutmix,
        probability=options.mix_probability,
        switch=options.mix_switch,
        per=options.mix_per,
        seed=seed,
        repeats=repeats,
    )
    if mixing.enabled and job.split.per_device * repeats == 1:
        msg = "mixup and cutmix mix the rows of a micro-batch, and there is only one in each"
        hint = "make it 2 or more, or set finetune.mixup and finetune.cutmix to 0"
        raise RecipeError(msg, where="finetune.batch.per_device", hint=hint)
    return FinetuneStep(
        model,
        task,
        job.precision,
        repeats=repeats,
        smoothing=options.label_smoothing,
        erase=RandomErase(options.erase, seed, repeats) if options.erase else None,
        mixing=mixing if mixing.enabled else None,
        compiled=options.compiles(job.device.type),
    )


def describe(recipe: Recipe) -> list[str]:
    """Describe the size of what a recipe fine-tunes, from the meta device.

    Raises:
        RecipeError, PartError: the parts do not fit together.
    """
    options, data = recipe.finetune, recipe.data
    if options is None or recipe.model is None:
        return []
    blank = Statistics((0.0,) * data.channels, (1.0,) * data.channels)
    classes = options.head.classes or 1
    none = LabelTable(np.zeros(0, np.int64), classes)
    task = Task(options.head.kind, ("",) * classes, none, none, "top1")
    with torch.device("meta"):
        encoder, header = untrained_encoder(recipe, blank)
        model, _ = make_classifier(encoder, header, options, task, recipe.seed)
    unused = None if model.fc_norm is None else model.backbone.last_norm()
    spare = set() if unused is None else set(unused.parameters())
    count = sum(p.numel() for p in model.parameters() if p not in spare)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    head = f"{classes} classes" if options.head.classes else "a head of one output"
    return [f"finetune: {count:,} parameters with {head}, {trained:,} trained"]


class FinetuneStep:
    """Normalize, erase, mix, classify and compare."""

    def __init__(
        self,
        model: Classifier,
        task: Task,
        precision: Precision,
        *,
        repeats: int = 1,
        smoothing: float = 0.0,
        erase: RandomErase | None = None,
        mixing: Mixup | None = None,
        compiled: bool = False,
    ) -> None:
        self.model = model
        self.task = task
        self.precision = precision
        self.repeats = repeats
        self.smoothing = smoothing
        self.erase = erase
        self.mixing = mixing
        # The bound method is compiled, not the module: saved keys stay as they are.
        self._logits: Callable[[Tensor], Tensor] = (
            torch.compile(model.forward) if compiled else model.forward
        )

    def weigh(self, batch: Batch) -> Weighed:
        """Count the rows that are good."""
        return Weighed(batch, float(batch.weight.sum()))

    def loss(self, weighed: Weighed) -> Tensor:
        """Sum the loss over good rows."""
        batch, device = weighed.batch, self.model.device
        weight = torch.from_numpy(batch.weight)
        pixels = self.model.normalize(to_device_float01(batch.views[0], device))
        rows = [key.index for key in batch.keys]
        targets = send(self.task.targets(rows, self.repeats), device)
        targets = self.task.smooth(targets, self.smoothing)
        if self.erase is not None:
            pixels = self.erase(pixels, batch.keys)
        if self.mixing is not None:
            mixed = self.mixing(pixels, batch.keys, batch.weight > 0)
            pixels, targets = mixed.pixels, mixed.targets(targets)
        with self.precision.autocast():
            logits = self._logits(pixels)
        each = self.task.loss(logits, targets)
        total: Tensor = (each * send(weight, device)).sum()
        return total
