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
            judged = f"{options.views.clips}x{options.views.crops}"
            if recipe.finetune.head.kind == "detection":  # of persons that others have detected
                judged = f"{recipe.finetune.boxes.dialect}/detected"
            assert each.protocol == f"finetune/{recipe.finetune.blocks}/{judged}"
        else:
            assert each.protocol == "linear/paper"


def test_there_are_some() -> None:
    assert sum(len(load(name).recipe.expected) for name in OF_PAPERS) > 15
