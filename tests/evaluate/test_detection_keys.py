"""Every key of ``finetune.boxes`` does something: the first batch, its loss, or what is judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from figures import Figures, resolved
from small_recipes import Recipe

from maekit.data.batch import BatchBuilder
from maekit.data.order import Key
from maekit.evaluate.detection.job import DetectionJob
from maekit.recipe.detection import BoxPooling, Jitter

NOT_READ: Recipe = {"finetune": {"boxes": {"short": 36}}}  # no whole number of patches
CHANGED: dict[str, tuple[object, Recipe]] = {
    "bins": (2, {}),
    "aligned": (False, {}),
    "inclusive": (False, {}),
    "region": ("frame", {}),
    "jitter": (None, {}),
    "jitter.left": ([-0.5, -0.4], {}),
    "jitter.top": ([-0.5, -0.4], {}),
    "jitter.right": ([-0.5, -0.4], {}),
    "jitter.bottom": ([-0.5, -0.4], {}),
    "most": (1, {}),
    "loss": ("mean", {}),
    "negatives": (False, {}),
    "dropout": ("bins", {"finetune": {"head": {"dropout": 0.5}}}),
    "widen": ([0.5, 0.5], {}),
    "short": (48, {}),
    "pad": (True, NOT_READ),
    "person_score": (False, {}),
    "dialect": ("mmaction", {}),
}


def test_every_key_is_here() -> None:
    own = [f"jitter.{key}" for key in Jitter.model_fields]
    assert set(CHANGED) == {*BoxPooling.model_fields, *own}


def seen(words: Recipe, *layers: Recipe) -> list[Any]:
    """Return the first batch's boxes, its weight and loss, and what is judged of data.val."""
    made = resolved({"finetune": {"head": {"init_std": 0.5}}}, *layers, {"finetune": words})
    job = DetectionJob(made, torch.device("cpu"), lambda _: None, source="scratch")
    keys = [Key(0, row) for row in range(4)]
    builder = BatchBuilder(job.reader.layout, keys)
    for place, key in enumerate(keys):
        builder.put(place, job.reader.read(key))
    weighed = job.step.weigh(builder.finish())
    torch.manual_seed(0)
    job.model.train()
    loss = float(job.step.loss(weighed).detach())
    judged = job.judge()
    corners = np.concatenate([each.corners for each in weighed.batch.boxes])
    return [corners.tolist(), weighed.weight, loss, judged.rows.scores.tolist(), judged.summary()]


@pytest.fixture(scope="module")
def sets() -> tuple[Figures, Figures]:
    train, val = Figures(4), Figures(4, seed=1, detected=True)
    none = train.labels[0]
    train.labels[0] = type(none)(none.corners, (none.labels[0], frozenset()), movie=none.movie)
    train.drawn[0] = (train.drawn[0][0], train.labels[0])
    return train, val


@pytest.mark.parametrize("key", CHANGED)
def test_a_key_changes_what_is_learned_or_judged(
    key: str, sets: tuple[Figures, Figures], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maekit.engine.job.open_sets", lambda *_: sets)
    value, both = CHANGED[key]
    inner: Any = {}
    place = inner
    *path, last = ("boxes", *key.split("."))
    for name in path:
        place = place.setdefault(name, {})
    place[last] = value
    assert seen(inner, both) != seen({}, both)
