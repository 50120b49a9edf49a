"""Recipes of other distributions: listed, found, extended, and never in anybody's way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from maekit.cli.recipes import list_recipes
from maekit.errors import RecipeError
from maekit.recipe.load import find, read
from maekit.recipe.shipped import from_plugins, shipped

Install = Callable[..., Path]
LOUD = "raise RuntimeError('imported')\n"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make a distribution visible as pip would leave it; its package must not be imported."""

    def installer(name: str, recipes: dict[str, str], value: str = "{package}:recipes") -> Path:
        site = tmp_path / f"site-{name}"
        package = name.replace("-", "_").lower()
        folder = site / package / "recipes"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").write_text(LOUD, encoding="utf-8")
        for recipe, text in recipes.items():
            path = folder / f"{recipe}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        info = site / f"{package}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.2\n", encoding="utf-8")
        points = f"[maekit.recipes]\nall = {value.format(package=package)}\n"
        (info / "entry_points.txt").write_text(points, encoding="utf-8")
        monkeypatch.syspath_prepend(str(site))
        return folder

    return installer


CHILD = "# Ours. More.\nextends: quickstart\nname: ours\npretrain: {steps: 7}\n"


def test_a_plugins_recipe_is_found_by_its_full_name(install: Install) -> None:
    folder = install("My_Plugin", {"ours": CHILD, "deep/er": "extends: my-plugin/ours\nname: er\n"})
    for name in ("my-plugin/ours", "My.Plugin/ours", "my_plugin/ours.yaml"):
        assert find(name) == folder / "ours.yaml"
    loaded = read("my-plugin/deep/er")
    assert loaded.data["name"] == "er"
    assert loaded.data["pretrain"]["steps"] == 7  # its parent's
    assert loaded.data["data"]["size"] == 64  # maekit's own
    assert "my_plugin" not in sys.modules


def test_a_recipe_extends_a_plugins_and_sweeps_over_it(install: Install, tmp_path: Path) -> None:
    install("my-plugin", {"ours": CHILD})
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: my-plugin/ours\nname: mine\n", encoding="utf-8")
    assert read(mine).data["pretrain"]["steps"] == 7
    sweep = "name: sweep\nablate: {base: my-plugin/ours, rows: {a: {}}, measure: [linear]}\n"
    mine.write_text(sweep, encoding="utf-8")
    assert read(mine).data["pretrain"]["steps"] == 7


def test_a_plugins_recipe_never_takes_the_place_of_maekits(install: Install) -> None:
    install("my-plugin", {"quickstart": CHILD})
    assert find("quickstart") == shipped()["quickstart"]
    assert read("my-plugin/quickstart").data["name"] == "ours"
    with pytest.raises(RecipeError) as caught:
        find("no-plugin/quickstart")
    assert "no such recipe" in caught.value.what


@pytest.mark.parametrize("wrong", ["ours", "maekit-plugin/ours", "my-plugin/our"])
def test_a_name_that_is_almost_right_is_answered(install: Install, wrong: str) -> None:
    install("my-plugin", {"ours": CHILD})
    with pytest.raises(RecipeError) as caught:
        find(wrong)
    assert "did you mean 'my-plugin/ours'?" in str(caught.value.hint)
    with pytest.raises(RecipeError) as caught:
        read({"extends": wrong, "name": "mine"})
    assert "my-plugin/ours" in str(caught.value.hint)


@pytest.mark.parametrize("value", ["{package}:nowhere", "{package}", "absent:recipes", ".:recipes"])
def test_a_wrong_declaration_is_a_note_and_hides_nothing(
    install: Install, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    install("good-plugin", {"ours": CHILD})
    install("bad-plugin", {"ours": CHILD}, value)
    found, problems = from_plugins()
    assert "good-plugin/ours" in found
    assert "bad-plugin/ours" not in found
    assert [problem.split(":")[0] for problem in problems] == ["recipes of bad-plugin 1.2"]
    assert list_recipes(json=False) == 0
    out, err = capsys.readouterr()
    assert "good-plugin/ours" in out
    assert "Ours." in out
    assert "note: left out: recipes of bad-plugin 1.2" in err


def test_an_unreadable_recipe_leaves_all_others_listed(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("my-plugin", {"ours": CHILD, "torn": "a: [", "orphan": "extends: nowhere\n"})
    assert list_recipes(json=False) == 0
    out, err = capsys.readouterr()
    assert "my-plugin/ours" in out
    assert err.count("left out: my-plugin/") == 2
