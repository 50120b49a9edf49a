"""The shipped ablations: each is valid, and beside its rows stand the paper's numbers of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from copy_reference import TARGET, copied

from maekit.ablate.plan import Plan, make_plan
from maekit.ablate.reference import paper_table
from maekit.recipe.load import read, read_tree
from maekit.recipe.shipped import shipped
from maekit.registry import resolve

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLES = Path(__file__).resolve().parents[3] / "shared" / "facts" / "paper_tables.json"
NAMES = [
    name
    for name, path in shipped().items()
    if name.startswith("ablations/") and read_tree(path).at(("ablate",)) is not None
]


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    return {name.partition("/")[2]: make_plan(resolve(read(name)), seeds=[0]) for name in NAMES}


@pytest.fixture(scope="module")
def published() -> list[dict[str, Any]]:
    if not TABLES.is_file():
        pytest.skip("the papers' tables are missing: no ../shared/facts beside the checkout")
    found: list[dict[str, Any]] = json.loads(TABLES.read_text())
    return found


def test_reference_is_a_copy(published: list[dict[str, Any]]) -> None:
    assert json.loads(TARGET.read_text()) == copied(published)


# By our measure, the paper's numbers in the order of our rows.
NUMBERS = {
    "mae_masking_ratio": {
        "finetune": [83.2, 83.4, 83.4, 84.7, 84.9, 85.0, 84.9, 84.9, 84.5, 83.0],
        "linear": [54.6, 58.9, 61.7, 67.0, 69.9, 71.8, 73.2, 73.5, 71.8, 66.1],
    },
    "mae_decoder_depth": {
        "finetune": [84.8, 84.9, 84.9, 84.9, 84.4], "linear": [65.5, 70.0, 71.9, 73.5, 73.3],
    },
    "mae_decoder_width": {
        "finetune": [84.9, 84.8, 84.9, 84.4, 84.3], "linear": [69.1, 71.3, 73.5, 73.1, 73.1],
    },
    "mae_mask_token": {"finetune": [84.2, 84.9], "linear": [59.6, 73.5], "flops": [3.3, 1.0]},
    "mae_target": {"finetune": [84.9, 85.4, 84.6, 85.3], "linear": [73.5, 73.9, 72.3, 71.6]},
    "mae_augmentation": {
        "finetune": [84.0, 84.7, 84.9, 84.3], "linear": [65.7, 73.1, 73.5, 71.9],
    },
    "mae_mask_sampling": {
        "finetune": [84.9, 83.9, 82.8, 84.0], "linear": [73.5, 72.3, 63.9, 66.0],
    },
    "mae_schedule": {
        "finetune": [82.3, 83.3, 84.3, 84.9, 85.1], "linear": [57.3, 64.4, 69.7, 73.5, 75.1],
    },
    "mae_partial_finetune": {
        "finetune": [73.5, None, 81.0, 83.1, 84.2, 84.4, 84.6, 84.7, 84.9],
    },
    "mae_scratch": {"finetune": [76.5, 82.5, 84.9]},
    "mae_compare": {"linear": [68.0, None, None, None]},
    "videomae_decoder_depth": {
        "finetune": [68.5, 69.2, 69.6, 69.3], "memory": [7.9, 10.2, 14.7, 23.7],
    },
    "videomae_mask_sampling": {"finetune": [68.0, 69.6, 68.3, 61.5]},
    "videomae_target": {"finetune": [63.0, 68.9, 69.6, 69.2]},
    "videomae_strategy": {"finetune": [32.6, 61.8, 65.2, 69.6]},
    "videomae_dataset": {"finetune": [64.8, 68.5, 69.6]},
    "videomae_transfer": {"finetune": [68.5, 96.1, 73.3]},
    "videomae_loss": {"finetune": [69.1, 69.6, 68.9]},
    "videomae_set_size": {"finetune": [68.7, 69.6, 68.5]},
}  # fmt: skip


def paper_of(plan: Plan) -> dict[str, list[float | None]]:
    reference = plan.ablate.reference
    if reference is None:
        return {}
    names = [row.name for row in plan.rows]
    table = paper_table(reference, names)
    return {measure: [table.of(name, measure) for name in names] for measure in table.columns}


def test_rows_stand_beside_their_numbers(plans: dict[str, Plan]) -> None:
    found = {name: paper_of(plan) for name, plan in plans.items() if not name.endswith("_tiny")}
    assert found == NUMBERS


def test_twins_have_their_rows_and_numbers(plans: dict[str, Plan]) -> None:
    twins = [name for name in plans if name.endswith("_tiny")]
    assert len(twins) == 19
    assert len(plans) == 19 + 19  # one each
    for name in twins:
        twin, whole = plans[name], plans[name.removesuffix("_tiny")]
        assert list(twin.ablate.seeds) == [0, 1, 2]
        theirs = {row.name: numbers for row, *numbers in zip(
            whole.rows, *paper_of(whole).values(), strict=True)}  # fmt: skip
        if twin.ablate.reference is None:  # rows that the paper does not have
            continue
        for row, *numbers in zip(twin.rows, *paper_of(twin).values(), strict=True):
            named = theirs.get(row.name)  # rows of other names stand for one of the paper's
            assert any(set(numbers) <= set(of) for of in ([named] if named else theirs.values()))


def pretrainings(plans: dict[str, Plan], paper: str) -> Iterator[str]:
    for name, plan in plans.items():
        if name.startswith(paper) and not name.endswith("_tiny"):
            yield from (key for key, job in plan.jobs.items() if job.verb == "pretrain")


def test_the_default_row_of_every_table_is_one_run(plans: dict[str, Plan]) -> None:
    # MAE's ViT-L: the base, ratio 9, depth 4, width 4, mask token 1, target 3, augmentation 3,
    # sampling 3, schedule 4.
    assert len(set(pretrainings(plans, "mae"))) == 32
    # VideoMAE on SSv2: the base, depth 3, masking 3, target 3, loss 2; the subset; ImageMAE, K400.
    assert len(set(pretrainings(plans, "videomae"))) == 12 + 1 + 2


def test_transfer_trains_once(plans: dict[str, Plan]) -> None:
    verbs = [job.verb for job in plans["videomae_transfer"].jobs.values()]
    assert sorted(verbs) == ["finetune"] * 3 + ["pretrain"]
    assert sum(job.verb == "pretrain" for job in plans["mae_partial_finetune"].jobs.values()) == 1
