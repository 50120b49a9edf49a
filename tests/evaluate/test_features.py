"""Features: which tokens, which layer, and always the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numerics import close, vit_terms
from toys import Clips, clip_source, model

from maekit.data.bad_files import BadFiles
from maekit.engine.precision import Precision
from maekit.errors import DataError, RecipeError
from maekit.evaluate.feature_cache import OnBad, collect_features, count_bad, raise_on_bad
from maekit.evaluate.features import Features, auto_pool, block_of
from maekit.evaluate.predictions import Reading
from maekit.evaluate.views import view_reader
from maekit.recipe.schema import DataSpec
from maekit.recipe.sections import Views

if TYPE_CHECKING:
    from collections.abc import Sequence

FP32 = Precision("fp32", "cpu")
CPU = torch.device("cpu")
TERMS = vit_terms(3 * 8 * 8, width=32, depth=3, tokens=7)


def clips(count: int, *, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 1, 16, 24, generator=torch.Generator().manual_seed(seed))


def test_pools_are_those_of_the_tokens() -> None:
    encoder, pixels = model(), clips(4)
    with torch.no_grad():
        tokens = encoder.encode(encoder.normalize(pixels))
    assert tokens.shape == (4, 7, 32)
    assert torch.equal(Features(encoder, "cls", None, FP32)(pixels), tokens[:, 0])
    assert torch.equal(Features(encoder, "mean", None, FP32)(pixels), tokens[:, 1:].mean(1))
    assert torch.equal(Features(encoder, "tokens", None, FP32)(pixels), tokens[:, 1:])


@pytest.mark.parametrize(("layer", "blocks"), [(1, 1), (2, 2), (3, 3), (-1, 3), (-3, 1)])
def test_a_layer_is_the_output_of_its_block(layer: int, blocks: int) -> None:
    encoder, pixels = model(), clips(2)
    seen: list[torch.Tensor] = []
    block = encoder.backbone.blocks()[blocks - 1]
    handle = block.register_forward_hook(lambda _module, _inputs, output: seen.append(output[0]))
    found = Features(encoder, "tokens", layer, FP32)(pixels)
    handle.remove()
    assert torch.equal(found, seen[0][:, 1:])


@pytest.mark.parametrize("layer", [0, 4, -4])
def test_other_layers_are_refused(layer: int) -> None:
    with pytest.raises(RecipeError, match="blocks 1 to 3"):
        block_of(layer, 3)


def test_cls_needs_a_class_token() -> None:
    encoder = model(class_token=False)
    with pytest.raises(RecipeError, match="no class token"):
        Features(encoder, "cls", None, FP32)
    assert auto_pool("auto", encoder.backbone.prefix_tokens) == "mean"
    assert auto_pool("auto", 1) == "cls"
    assert auto_pool("mean", 1) == "mean"


@pytest.mark.parametrize("pool", ["cls", "mean", "tokens"])
def test_batches_of_1_and_64_agree(pool: str) -> None:
    extractor, pixels = Features(model(), pool, None, FP32), clips(64)  # type: ignore[arg-type]
    alone = torch.cat([extractor(one) for one in pixels.split(1)])
    close(extractor(pixels), alone, terms=TERMS)


def test_two_calls_are_equal_and_nothing_is_dropped() -> None:
    encoder, pixels = model(), clips(3)
    encoder.train()
    extractor = Features(encoder, "mean", None, FP32)
    assert not encoder.training
    assert torch.equal(extractor(pixels), extractor(pixels))


def dataset(broken: frozenset[int] = frozenset()) -> Clips:
    return Clips([clip_source(5, 16 + n, 24, f"{n}.mp4") for n in range(11)], broken=broken)


def gather(
    data: Clips, rows: Sequence[int] = range(11), on_bad: OnBad = raise_on_bad
) -> tuple[np.ndarray, np.ndarray]:
    reader = view_reader(
        data, DataSpec(name="v", frames=1), Views(clips=2), size=(16, 24), channels=3
    )
    extractor = Features(model(), "mean", None, FP32)
    found = collect_features(reader, {"x": extractor}, rows, Reading(CPU, 6, 0, 1.0), on_bad)
    return found.rows, found.features["x"]


def test_features_of_a_set_keep_its_order() -> None:
    rows, features = gather(dataset())
    assert rows.tolist() == list(range(11))
    assert features.shape == (11, 2 + 1, 32)  # two clips, and the center view
    some, same = gather(dataset(), [7, 3])
    assert some.tolist() == [7, 3]
    close(same, features[[7, 3]], terms=TERMS)


def test_bad_samples_are_fatal_or_left_out() -> None:
    with pytest.raises(DataError, match=r"4\.mp4"):
        gather(dataset(frozenset({4})))
    ledger = BadFiles(None, 11, 0.5)
    rows, features = gather(dataset(frozenset({4, 9})), on_bad=count_bad(ledger))
    assert rows.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 10]
    assert len(ledger) == 2
    _, whole = gather(dataset())
    close(features, whole[rows], terms=TERMS)
