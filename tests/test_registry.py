"""The registry: metadata first, imports on use, and plugins that cannot hurt each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from maekit import registry
from maekit.contracts import Grid, PartContext
from maekit.errors import PartError, RecipeError
from maekit.recipe.dump import dump
from maekit.recipe.load import load
from maekit.recipe.schema import DataSpec, DecoderSpec, MaskerSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    Install = Callable[..., None]

MODULE = """\
from pathlib import Path
from pydantic import Field
from maekit.contracts import (
    Backbone, Dataset, Decoder, Masker, PartContext, PartOptions, Target
)

class Plain(Masker, Target):
    __call__ = encode = loss = None
    class Options(PartOptions):
        ratio: float = Field(0.5, gt=0, lt=1)
        sizes: tuple[int, int] = (1, 2)
    def __init__(self, options):
        self.options = options

class Folder(Dataset):
    __len__ = open = name = None
    class Options(PartOptions):
        path: Path
        others: tuple[Path, ...] = ()
        cache: Path | None = None
    def __init__(self, options):
        self.options = options

class Knowing(Backbone, Decoder):
    forward = grid = blocks = layer_of = None
    class Options(PartOptions):
        depth: int = 1
    def __init__(self, options, context):
        self.options, self.context = options, context

class Bare(Decoder):
    forward = None

class Stranger:
    pass

class Unfinished(Masker):
    pass

class Greedy(Folder):
    class Options(PartOptions):
        frames: int = 1

def function(options):
    return options
"""
PARTS = {
    "maskers": "thirds = {module}:Plain\nstranger = {module}:Stranger\nhalf = {module}:Unfinished",
    "targets": "color = {module}:Plain",
    "backbones": "net = {module}:Knowing",
    "decoders": "head = {module}:Knowing\nbare = {module}:Bare\nfunction = {module}:function",
    "datasets": "folder = {module}:Folder\ngreedy = {module}:Greedy",
}
RECIPE = """\
name: plugged
data:
  train: {name: folder, path: pictures}
model:
  backbone: {name: net}
  decoder: {name: head}
pretrain:
  masker: {name: thirds, ratio: 0.25}
  target: {name: color}
  steps: 1
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make a distribution visible as pip would leave it: a module and its metadata."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def installer(name: str, parts: dict[str, str] | None = None, source: str = MODULE) -> None:
        module = name.replace("-", "_").lower()
        (site / f"{module}.py").write_text(source, encoding="utf-8")
        info = site / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.2\n", encoding="utf-8")
        groups = [
            f"[maekit.{kind}]\n{lines.format(module=module)}"
            for kind, lines in (PARTS if parts is None else parts).items()
        ]
        (info / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")
        monkeypatch.delitem(sys.modules, module, raising=False)
        registry._entries.cache_clear()

    yield installer
    registry._entries.cache_clear()


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "plugged.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def test_built_ins_come_through_the_same_door() -> None:
    names = {(entry.kind, entry.name) for entry in registry.listed()}
    assert {
        ("maskers", "random"),
        ("maskers", "grid"),
        ("targets", "pixel"),
        ("targets", "norm-pixel"),
        ("backbones", "image-vit"),
        ("decoders", "vit"),
        ("datasets", "images"),
        ("datasets", "sample-images"),
    } <= names
    assert [entry.kind for entry in registry.listed("maskers")] == ["maskers"] * len(
        registry.listed("maskers")
    )


def test_listing_imports_no_part(install: Install) -> None:
    install("loud-plugin", source="raise RuntimeError('imported')")
    listed = [entry for entry in registry.listed() if entry.distribution == "loud-plugin"]
    assert {entry.full_name for entry in listed} >= {"loud-plugin/thirds", "loud-plugin/folder"}
    assert listed[0].version == "1.2"


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys; from maekit import registry; registry.listed(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_unknown_parts_are_answered_with_the_nearest() -> None:
    with pytest.raises(PartError) as caught:
        registry.find("maskers", "randm")
    assert caught.value.what == "unknown masker 'randm'"
    assert "did you mean 'random'?" in str(caught.value.hint)
    assert "maekit plugins list" in str(caught.value.hint)
    with pytest.raises(PartError, match="'vit' is a decoder"):
        registry.find("backbones", "vit")
    with pytest.raises(PartError):
        registry.find("maskers", "elsewhere/random")


def test_built_ins_own_their_names(install: Install) -> None:
    install("rival", {"maskers": "random = {module}:Plain"})
    assert registry.find("maskers", "random").__module__ == "maekit.maskers.random"
    assert registry.find("maskers", "maekit/random").__module__ == "maekit.maskers.random"
    assert registry.find("maskers", "rival/random").__module__ == "rival"
    rival = registry.entry("maskers", "rival/random")
    assert registry.names_of(rival) == ("rival/random",)


def test_two_plugins_clash_only_when_the_bare_name_is_used(install: Install) -> None:
    install("one-plugin")
    install("Two_Plugin")
    with pytest.raises(PartError) as caught:
        registry.find("maskers", "thirds")
    assert "2 distributions" in caught.value.what
    assert "one-plugin/thirds, two-plugin/thirds" in str(caught.value.hint)
    assert registry.find("maskers", "two_plugin/thirds").__module__ == "two_plugin"
    assert registry.find("maskers", "random").__module__ == "maekit.maskers.random"


@pytest.mark.parametrize("source", ["import absent_module", "1/0", "import sys; sys.exit(3)", "("])
def test_a_broken_plugin_is_named_and_breaks_nothing_else(install: Install, source: str) -> None:
    install("broken-plugin", source=source)
    with pytest.raises(PartError) as caught:
        registry.find("maskers", "thirds")
    assert "'thirds' of broken-plugin 1.2 cannot be imported" in caught.value.what
    assert registry.find("maskers", "random") is not None


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("decoders", "bare", "no `Options`"),
        ("decoders", "function", "not a class"),
        ("maskers", "stranger", "does not inherit from maekit.contracts.Masker"),
        ("maskers", "half", "does not define __call__"),
        ("datasets", "greedy", "the core owns: frames"),
    ],
)
def test_parts_that_keep_no_contract(install: Install, kind: str, name: str, words: str) -> None:
    install("some-plugin")
    with pytest.raises(PartError) as caught:
        registry.options_of(kind, name)
    assert words in caught.value.what
    assert "some-plugin" in str(caught.value.hint)


CONTEXT = PartContext(Grid(1, 2, 2), (1, 2, 2), 3, (0.0,) * 3, (1.0,) * 3)


def test_parts_are_built_by_what_they_take(install: Install) -> None:
    install("some-plugin")
    plain = registry.build(MaskerSpec(name="thirds", sizes=[3, 4]), CONTEXT)
    assert plain.options.sizes == (3, 4)
    knowing = registry.build(DecoderSpec(name="head", depth=2), CONTEXT)
    assert (knowing.options.depth, knowing.context) == (2, CONTEXT)
    with pytest.raises(PartError, match="needs a context"):
        registry.build(DecoderSpec(name="head"))


def test_the_cores_keys_never_reach_a_dataset(install: Install) -> None:
    install("some-plugin")
    spec = DataSpec(name="folder", path="x", frames=8, stride=2)
    assert registry.build(spec).options.model_dump() == {
        "path": Path("x").absolute(),
        "others": (),
        "cache": None,
    }


def test_wrong_options_are_refused_when_built(install: Install) -> None:
    install("some-plugin")
    with pytest.raises(RecipeError) as caught:
        registry.build(MaskerSpec(name="thirds", ration=1))
    assert str(caught.value).startswith("masker thirds: ration: unknown key")


class TestResolve:
    def test_fills_in_defaults_and_makes_paths_absolute(
        self, install: Install, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install("some-plugin")
        monkeypatch.chdir(recipe_file.parent)
        loaded = load(recipe_file, ["data.train.others=[a, ~/b]", "data.train.cache=/c/../d"])
        assert loaded.recipe.data.train.written["path"] == "pictures"
        recipe = registry.resolve(loaded)
        here = recipe_file.parent
        assert recipe.data.train.options.model_dump(mode="json") == {
            "path": str(here / "pictures"),
            "others": [str(here / "a"), str(Path.home() / "b")],
            "cache": "/c/../d",
        }
        assert recipe.model.backbone.options.model_dump(mode="json") == {"depth": 1}
        assert recipe.pretrain is not None
        assert recipe.pretrain.masker.options.model_dump(mode="json") == {
            "ratio": 0.25,
            "sizes": [1, 2],
        }

    def test_is_complete_and_stable(
        self, install: Install, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install("some-plugin")
        recipe = registry.resolve(load(recipe_file))
        again = recipe_file.with_name("again.yaml")
        again.write_text(dump(recipe), encoding="utf-8")
        monkeypatch.chdir("/")  # nothing in it depends on where it is read
        assert registry.resolve(load(again)) == recipe
        assert dump(load(again).recipe) == dump(recipe)

    def test_overlays_are_checked_and_merged_for_their_verb(
        self, install: Install, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install("some-plugin")
        monkeypatch.chdir(recipe_file.parent)
        words = ["pretrain.data.train.path=other", "pretrain.model.backbone.depth=3"]
        loaded = load(recipe_file, words)
        merged = registry.resolve(loaded, "pretrain")
        absolute = str(recipe_file.parent / "other")
        assert merged.data.train.written["path"] == absolute
        assert merged.model.backbone.options.model_dump(mode="json") == {"depth": 3}
        assert merged.pretrain is not None
        assert merged.pretrain.data is None
        whole = registry.resolve(loaded)
        assert whole.pretrain is not None
        assert whole.pretrain.data == {"train": {"path": absolute}}
        assert whole.pretrain.model == {"backbone": {"depth": 3}}
        assert whole.model.backbone.options.model_dump(mode="json") == {"depth": 1}
        with pytest.raises(RecipeError, match=r"command line: data\.train\.pth: unknown key"):
            registry.resolve(load(recipe_file, ["pretrain.data.train.pth=other"]))

    @pytest.mark.parametrize(
        ("word", "text"),
        [
            ("pretrain.masker.ration=1", "pretrain.masker.ration: unknown key"),
            ("pretrain.masker.ratio=1.5", "pretrain.masker.ratio: expected less than 1.0, got 1.5"),
            ("pretrain.masker.ratio=.nan", "pretrain.masker.ratio: expected a finite number"),
            ("pretrain.masker.ratio='0.5'", "pretrain.masker.ratio: expected a number, got '0.5'"),
            ("pretrain.masker.sizes=[1]", "pretrain.masker.sizes[1]: missing"),
            ("pretrain.masker.name=other", "pretrain.masker.name: unknown masker 'other'"),
            ("model.decoder.name=bare", "model.decoder.name: decoder 'bare' of some-plugin"),
            ("data.train.name=greedy", "data.train.name: dataset 'greedy' of some-plugin"),
        ],
    )
    def test_what_is_wrong_has_its_place(
        self, install: Install, recipe_file: Path, word: str, text: str
    ) -> None:
        install("some-plugin")
        with pytest.raises((RecipeError, PartError)) as caught:
            registry.resolve(load(recipe_file, [word]))
        assert str(caught.value).startswith(f"command line: {text}")
        assert caught.value.hint

    def test_places_in_files_have_their_line(self, install: Install, recipe_file: Path) -> None:
        install("some-plugin")
        recipe_file.write_text(RECIPE.replace("ratio: 0.25", "ratio: 2"), encoding="utf-8")
        with pytest.raises(RecipeError) as caught:
            registry.resolve(load(recipe_file))
        assert caught.value.where == f"{recipe_file}:8"
