"""What is said after a run: what fits its state, as it can be typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from maekit.cli.verbs import NEXT_STEPS
from maekit.recipe.dump import dump
from maekit.recipe.load import find, load
from maekit.registry import resolve


def after(tmp_path: Path, recipe: str, *overrides: str) -> str:
    resolved = resolve(load(recipe, list(overrides)), "pretrain")
    (tmp_path / "recipe.yaml").write_text(dump(resolved))
    return "\n".join(NEXT_STEPS["pretrain"](recipe, {"recipe": resolved.name}, tmp_path))


@pytest.mark.parametrize(
    ("recipe", "file"),
    [("quickstart", "photo.jpg"), ("quickstart_video", "clip.mp4")],
)
def test_a_quickstart_says_what_it_is_too_short_for(tmp_path: Path, recipe: str, file: str) -> None:
    said = after(tmp_path, recipe)
    assert f"maekit reconstruct {file} --from {tmp_path}" in said
    assert f"maekit report {tmp_path}" in said
    assert "maekit recipes new FOLDER" in said
    assert "too short to learn features by" in said
    better = "drawn_images"  # on clips no recipe of minutes is
    assert (f"maekit pretrain {better}" in said) == (recipe == "quickstart")
    find(better)


def test_own_files_get_no_word_on_drawn_ones_and_labels_lead_on(tmp_path: Path) -> None:
    own = ("data.train.name=images", "data.train.path=my/photos", "~data.val")
    said = after(tmp_path, "quickstart", *own)
    assert f"maekit reconstruct photo.jpg --from {tmp_path}" in said
    assert "maekit pretrain" not in said
    for recipe in ("drawn_images", "tiny_images", "tiny_videos"):
        said = after(tmp_path, recipe)
        for verb in ("finetune", "probe"):
            assert f"maekit {verb} {recipe} --from {tmp_path}" in said
        assert "maekit pretrain" not in said
