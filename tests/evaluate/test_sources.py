"""Which weights a verb that judges takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from maekit.errors import RecipeError
from maekit.evaluate.encoder import SCRATCH, weights_or_newest
from maekit.recipe.load import load
from maekit.registry import resolve


def test_a_source_that_is_not_there_is_refused_before_there_is_a_folder(tmp_path: Path) -> None:
    recipe = resolve(load("quickstart"), "pretrain")
    there = tmp_path / "some.pth"
    for absent in (str(there), f"hf:{tmp_path / 'folder'}"):
        with pytest.raises(RecipeError, match="no such run or weights file"):
            weights_or_newest(recipe, absent, print)
    there.touch()
    for source in (str(there), f"hf:{tmp_path}", "timm:vit_tiny_patch16_224", SCRATCH):
        assert weights_or_newest(recipe, source, print) == source
