"""Numbers of papers are of a way of judging: each names it, so that no other is held against it."""

from __future__ import annotations

import pytest

from maekit.recipe.load import load
from maekit.recipe.shipped import shipped

OF_PAPERS = [
    name for name in shipped() if name.startswith(("mae_in1k", "mae_scratch", "mae_st", "videomae"))
]


@pytest.mark.parametrize("name", OF_PAPERS)
def test_expected_numbers_name_the_protocol_of_their_own_recipe(name: str) -> None:
    recipe = load(name).recipe
    for each in recipe.expected:
        options = recipe.finetune if each.metric.startswith("finetune.") else recipe.probe
        assert options is not None
        if each.metric.startswith("finetune."):
            assert recipe.finetune is not None
            views = f"{options.views.clips}x{options.views.crops}"
            assert each.protocol == f"finetune/{recipe.finetune.blocks}/{views}"
        else:
            assert each.protocol == "linear/paper"


def test_there_are_some() -> None:
    assert sum(len(load(name).recipe.expected) for name in OF_PAPERS) > 15
