"""Several ranks compute what one process does: the same losses, weights, scores and files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import Runs, shared_runs

from maekit.engine.run_folder import read_lines

# One test makes all the runs: a busy machine takes minutes for them.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
KEY_BIAS = "qkv.bias"  # its middle third has no gradient but rounding
ENDS = {"astray-2": 8, "predict-1": 6, "predict-2": 6}  # exit codes that are not 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    base = tmp_path_factory.getbasetemp()
    # Of pytest as a whole, where this is one of its workers.
    return shared_runs((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "ranks")


def test_every_rank_ends_well(runs: Runs) -> None:
    for name, codes in runs.codes.items():
        assert set(codes) == {ENDS.get(name, 0)}, runs.said(name)


def test_parameters_that_differ_after_the_first_step_end_the_run(runs: Runs) -> None:
    assert "the ranks' parameters differ after step 1" in runs.said("astray-2")


def test_embed_and_evaluate_by_shares(runs: Runs) -> None:
    """The same bytes, and the same scores in the same order; only rank 0 prints."""
    one, two = ((runs.folder / f"embedded-{ranks}.npz").read_bytes() for ranks in (1, 2))
    assert one == two
    one, two = ((runs.folder / f"predicted-{ranks}.csv").read_text() for ranks in (1, 2))
    assert len(one.splitlines()) == 1 + 300 + 20
    assert one == two
    assert "this is no picture" not in one
    drawn, shared = (
        {path.name: path.read_bytes() for path in (runs.folder / f"drawn-{ranks}").iterdir()}
        for ranks in (1, 2)
    )
    assert len(drawn) == -(-319 // 20)  # sheets; one cannot be read
    assert drawn == shared
    assert "007.png" in runs.said("predict-2")
    assert runs.result("evaluate-1")["samples"] == 7
    for name in ("top1", "per_class", "samples"):
        assert runs.result("evaluate-1").get(name) == runs.result("evaluate-2").get(name)
    scores = [(runs.folder / f"evaluate-{each}" / "predictions.jsonl").read_text() for each in "12"]
    assert scores[0] == scores[1]
    for name in ("embed-2", "evaluate-2", "predict-2"):
        assert (runs.folder / f"{name}.0.txt").read_text()
        assert (runs.folder / f"{name}.1.txt").read_text() == ""


@pytest.mark.parametrize("kind", ["image", "video", "repeats", "fitted", "tokenizer", "follower"])
def test_two_ranks_are_accumulation_two_bit_for_bit(runs: Runs, kind: str) -> None:
    assert runs.steps(f"{kind}-1") == runs.steps(f"{kind}-2")
    one, two = runs.weights(f"{kind}-1"), runs.weights(f"{kind}-2")
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name
    for ours, theirs in zip(runs.held_out(f"{kind}-1"), runs.held_out(f"{kind}-2"), strict=True):
        assert ours["step"] == theirs["step"]
        # Sums over batches, in float64, in another order.
        assert_close(ours["holdout"], theirs["holdout"])


@pytest.mark.parametrize(
    ("resumed", "unbroken"),
    [("image-21", "image-1"), ("image-12", "image-2"), ("tokenizer-21", "tokenizer-1")],
)
def test_a_run_continues_on_another_number_of_ranks(
    runs: Runs, resumed: str, unbroken: str
) -> None:
    assert runs.steps(resumed) == runs.steps(unbroken)
    found, expected = runs.weights(resumed), runs.weights(unbroken)
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


@pytest.mark.parametrize(
    ("sharded", "replicated"),
    [
        ("image-f", "image-1"),
        ("video-f", "video-1"),
        ("finetune-f", "finetune-2"),
        ("image-half-f", "image-half"),
        ("bad-f", "bad-2"),
        ("follower-f", "follower-1"),  # the target follows whole parameters
        # Saved by one way and continued by the other.
        ("image-f1", "image-1"),
        ("image-1f", "image-1"),
        ("finetune-f2", "finetune-2"),
        ("finetune-2f", "finetune-2"),
    ],
)
def test_sharded_parameters_are_whole_ones_bit_for_bit(
    runs: Runs, sharded: str, replicated: str
) -> None:
    """Only the reported norm is added up in another order; it clips nothing here."""
    for ours, theirs in zip(runs.steps(sharded), runs.steps(replicated), strict=True):
        assert ours[:2] == theirs[:2]
        assert ours[2] == pytest.approx(theirs[2], rel=1e-6)
    found, expected = runs.weights(sharded), runs.weights(replicated)
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name
    for ours, theirs in zip(runs.held_out(sharded), runs.held_out(replicated), strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_close(ours[key], theirs[key])


def test_runs_are_extended_alike(runs: Runs) -> None:
    assert [step for step, _, _ in runs.steps("extended-1")] == list(range(1, 10))
    assert runs.steps("extended-1")[:6] == runs.steps("image-1")
    assert runs.steps("extended-2") == runs.steps("extended-1")
    for name in ("extended-2", "extended-f"):
        found, expected = runs.weights(name), runs.weights("extended-1")
        assert all(torch.equal(found[each], expected[each]) for each in expected)
        (said,) = json.loads((runs.folder / name / "extended.json").read_text())
        assert said["at"] == 6
        assert runs.said(name).count("extended from 6 to 9 steps") == 1


def test_a_sharded_tokenizer(runs: Runs) -> None:
    """FSDP2 lays convolutions out in another way, so that they round differently."""
    assert_same_course(runs, "tokenizer-f", "tokenizer-2")
    assert_moved_alike(runs, "tokenizer-f", "tokenizer-2", "start-tokenizer")


@pytest.mark.parametrize("name", ["whole-4", "whole-42", "whole-22", "whole-4f"])
def test_ranks_are_one_process_up_to_rounding(runs: Runs, name: str) -> None:
    assert runs.seen(name) == runs.seen("whole-1")
    assert_same_course(runs, name, "whole-1")
    assert_moved_alike(runs, name, "whole-1", "start-image")


@pytest.mark.parametrize("name", ["sgd-4", "sgd-42"])
def test_with_sgd_all_weights_are_the_same(runs: Runs, name: str) -> None:
    """Steps are as large as gradients: what rounding does to these stays as small as they are."""
    assert_same_course(runs, name, "sgd-1")
    found, expected, start = (runs.weights(each) for each in (name, "sgd-1", "start-image"))
    moved = 0.0
    for key, theirs in expected.items():
        gap = float((found[key] - theirs).norm())
        assert gap <= 1e-6 * float(theirs.norm()), key
        moved = max(moved, float((theirs - start[key]).norm() / theirs.norm()))
    assert moved > 0.01  # it did learn


def test_clipping_and_recomputing(runs: Runs) -> None:
    """With shards the norm is added up in another order, and every gradient is scaled by it."""
    assert min(norm for _, _, norm in runs.steps("clipped-1")) > 0.01
    assert runs.steps("clipped-2") == runs.steps("clipped-1")
    two, one = runs.weights("clipped-2"), runs.weights("clipped-1")
    assert all(torch.equal(two[name], one[name]) for name in one)
    assert_same_course(runs, "clipped-f", "clipped-1")
    assert_moved_alike(runs, "clipped-f", "clipped-1", "start-image")


def test_a_batch_that_is_fitted_to_memory(runs: Runs) -> None:
    assert "batch.per_device: auto is 4" in runs.said("auto-2")
    assert runs.steps("auto-2") == runs.steps("image-2")


def assert_close(one: Any, other: Any) -> None:
    """Compare numbers, and what has none (None: the target paints no pixels)."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_close(one[key], other[key])
    elif one is None:
        assert other is None
    else:
        assert one == pytest.approx(other, rel=1e-12)


def assert_same_course(runs: Runs, one: str, other: str) -> None:
    """Compare the loss and the gradient's norm of every step."""
    for ours, theirs in zip(runs.steps(one), runs.steps(other), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)


def assert_moved_alike(runs: Runs, one: str, other: str, start: str) -> None:
    """Compare how far, and where to, each tensor went from where it began."""
    found, expected, began = (runs.weights(each) for each in (one, other, start))
    for name, theirs in expected.items():
        gap, movement = found[name] - theirs, theirs - began[name]
        if name.endswith(KEY_BIAS):
            gap, movement = (torch.cat(each.chunk(3)[::2]) for each in (gap, movement))
        gap, moved = float(gap.norm()), float(movement.norm())
        assert gap <= 1e-3 * moved, (name, gap, moved)


def test_a_bad_file_on_one_rank_counts_nowhere(runs: Runs) -> None:
    assert_same_course(runs, "bad-1", "bad-2")
    assert_moved_alike(runs, "bad-1", "bad-2", "start-image")
    for name in ("bad-1", "bad-2", "bad-f"):
        lines = list(read_lines(runs.folder / name / "bad_files.jsonl"))
        assert [Path(line["file"]).name for line in lines] == ["007.png"]
        assert runs.result(name)["bad_files"] == 1


def test_finetuning_by_two_ranks(runs: Runs) -> None:
    """Mixing goes by sample, so that scores of each sample are the same, and in order."""
    assert_same_course(runs, "finetune-1", "finetune-2")
    assert_moved_alike(runs, "finetune-1", "finetune-2", "start-finetune")
    scores = [
        list(read_lines(runs.folder / name / "predictions.jsonl"))
        for name in ("finetune-1", "finetune-2")
    ]
    assert len(scores[0]) == 7
    for ours, theirs in zip(*scores, strict=True):
        assert (ours["row"], ours["id"], ours["label"]) == tuple(
            theirs[key] for key in ("row", "id", "label")
        )
        assert ours["scores"] == pytest.approx(theirs["scores"], abs=2e-5)
    assert runs.steps("finetune-22") == runs.steps("finetune-2")
    resumed, unbroken = runs.weights("finetune-22"), runs.weights("finetune-2")
    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)


def test_actions_in_boxes_by_two_ranks(runs: Runs) -> None:
    """Learned bit for bit, and judged: the same boxes in the same order, whoever scored them."""
    assert runs.steps("boxes-1") == runs.steps("boxes-2")
    one, two = runs.weights("boxes-1"), runs.weights("boxes-2")
    assert all(torch.equal(one[name], two[name]) for name in one)
    first = (runs.folder / "boxes-1/predictions.csv").read_bytes()
    assert len(first.splitlines()) == 8 * 2 * 3
    keys = ("map", "per_class", "per_movie", "floor", "boxes", "true", "unread", "protocol")
    for name in ("boxes-2", "judged-1", "judged-2"):
        assert (runs.folder / name / "predictions.csv").read_bytes() == first, name
        for key in keys:
            assert runs.result(name)[key] == runs.result("boxes-1")[key], (name, key)
        (bad,) = read_lines(runs.folder / name / "bad_files.jsonl")
        assert bad["file"] == "film4,0000.200"
    assert (runs.result("boxes-1")["unread"], runs.result("boxes-1")["true"]) == (1, 18)
    assert runs.said("boxes-2").count("film4,0000.200 cannot be read") == 1
    assert (runs.folder / "judged-2.1.txt").read_text() == ""


def test_probes_by_two_ranks(runs: Runs) -> None:
    """The paper's batch norm is of the whole batch; cached features are made by shares."""
    for one, two in zip(runs.steps("probe-1"), runs.steps("probe-2"), strict=True):
        assert one == pytest.approx(two, rel=1e-4)
    for kind in ("probe", "knn"):
        one, two = runs.result(f"{kind}-1"), runs.result(f"{kind}-2")
        for key in ("top1", "floor", "per_class", "train_samples", "val_samples"):
            if key in one:
                assert one[key] == pytest.approx(two[key], abs=1e-6), key


def test_rank_0_speaks_for_all(runs: Runs) -> None:
    """Its stdout is that of one process; the others say nothing."""
    assert "holdout loss" in (runs.folder / "image-2.0.txt").read_text()
    assert (runs.folder / "image-2.1.txt").read_text() == ""
