"""Faults that are planted are found, each by the name of the promise that it breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import backbones, datasets, decoders, maskers, targets

from maekit.scaffold import backbone, dataset, decoder, masker, target, target_fitted
from maekit.testing import (
    BrokenPromiseError,
    check_backbone,
    check_dataset,
    check_decoder,
    check_masker,
    check_target,
)
from maekit.testing.modules import example
from maekit.testing.targets import small_encoder
from maekit.tokens import Mask

# Each takes more time than all others of its kind together.
COSTLY = {
    check_masker: {"draws_the_same_in_a_worker_without_torch"},
    check_dataset: {"reads_the_same_in_a_worker_without_torch"},
    check_backbone: {"computes_the_same_compiled"},
    check_decoder: {"computes_the_same_compiled"},
    check_target: set(),
}
KINDS = {
    check_masker: maskers,
    check_dataset: datasets,
    check_backbone: backbones,
    check_decoder: decoders,
    check_target: targets,
}
MOST = 2  # promises that one fault may break: a network that is drawn anew is in no state either
REVIEWED = [(c, part, p) for c, module in KINDS.items() for part, p in module.REVIEWED.items()]
MORE = [(c, part, p) for c, module in KINDS.items() for part, p in module.MORE.items()]
STARTS = {
    check_masker: masker.MyPart,
    check_dataset: dataset.MyPart,
    check_backbone: backbone.MyPart,
    check_decoder: decoder.MyPart,
}
CORRECT = [
    *((check, part) for check, module in KINDS.items() for part in module.CORRECT),
    *STARTS.items(),
    (check_target, target.MyPart),
    (check_target, target_fitted.MyPart),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips of three frames."""
    found = tmp_path_factory.mktemp("clips")
    for number in range(4):
        rng = np.random.default_rng(number)
        np.save(found / f"{number}.npy", rng.integers(0, 256, (3, 16, 20, 3), dtype=np.uint8))
    return found


def broken(check: Any, part: type, folder: Path, **more: Any) -> tuple[str, ...]:
    """Return the names of the promises that a part breaks."""
    options = {"path": folder} if check is check_dataset else {}
    try:
        check(part, options, **more)
    except BrokenPromiseError as error:
        return error.promises
    return ()


def named(case: object) -> str | None:
    return getattr(case, "__name__", None)


def test_the_catalog_is_that_of_the_review() -> None:
    assert {check.__name__: len(module.REVIEWED) for check, module in KINDS.items()} == {
        "check_masker": 20,
        "check_target": 16,
        "check_backbone": 14,
        "check_decoder": 6,
        "check_dataset": 15,
    }


def test_five_of_each_kind_are_correct() -> None:
    kinds = [check for check, _ in CORRECT]
    assert all(kinds.count(check) >= 5 for check in KINDS)


@pytest.mark.parametrize(("check", "part", "promise"), REVIEWED[:20] + REVIEWED[-3:], ids=named)
def test_faults_of_maskers_and_some_others(
    check: Any, part: type, promise: str, folder: Path
) -> None:
    without = COSTLY[check] - {promise}
    found = broken(check, part, folder, without=without)
    assert promise in found
    assert len(found) <= MOST


@pytest.mark.slow
@pytest.mark.parametrize(("check", "part", "promise"), REVIEWED[20:-3] + MORE, ids=named)
def test_faults(check: Any, part: type, promise: str, folder: Path) -> None:
    without = COSTLY[check] - {promise}
    found = broken(check, part, folder, without=without)
    assert promise in found
    assert len(found) <= MOST


@pytest.mark.slow
@pytest.mark.parametrize(("check", "part"), CORRECT, ids=named)
def test_what_is_correct_passes(check: Any, part: type, folder: Path) -> None:
    assert broken(check, part, folder) == ()


def test_encoders_of_many_prefix_tokens_are_followed() -> None:
    context = example(prefix_tokens=5)
    encoder = small_encoder(context)
    pixels = torch.rand(1, 3, *context.shape)
    nothing = Mask.nothing_hidden(1, context.grid.tokens)
    encoded = encoder(pixels, nothing, (0,))
    assert encoded.tokens.shape[1] == encoded.layers[0].shape[1] == 5 + context.grid.tokens
    check_target(targets.Teacher, contexts=[context], only=["comes_back_from_its_state"])


def test_what_is_broken_for_clips_alone_says_so() -> None:
    with pytest.raises(BrokenPromiseError, match=r"\(of 4x32x48 pixels, 2 blocks\)"):
        check_decoder(decoders.WrongForClips, only={"predicts_every_hidden_token"})


def test_a_promise_that_there_is_not_is_no_choice() -> None:
    with pytest.raises(ValueError, match="no promise hides_nothing; there are"):
        check_masker(maskers.Honest, only={"hides_nothing"})
