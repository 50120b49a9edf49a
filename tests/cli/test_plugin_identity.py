"""A run says whose parts it has: none is taken for another's, and a missing one is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from own_parts import Site
from small_recipes import IMAGES, draw_smooth, sets, write_recipe
from small_runs import same_weights

from maekit import registry
from maekit.engine.resume import _same_part
from maekit.weights.safetensors_io import read_header

if TYPE_CHECKING:
    from conftest import Result

    Cli = Callable[..., Result]

SOURCE = '''\
import numpy as np
from maekit.contracts import Masker, PartOptions
from maekit.decoders.vit import ViTDecoder
from maekit.targets.pixel import NormPixel

class Stripes(Masker):
    """Hides every {step}nd column."""
    class Options(PartOptions):
        ratio: float = 0.5
    def __init__(self, options):
        pass
    def __call__(self, grid, rng):
        hidden = np.zeros(grid, bool)
        hidden[..., {start}::3] = True
        return hidden

class Own(NormPixel):
    """Normalized pixels."""

class Head(ViTDecoder):
    """The decoder vit."""
'''
OWN = {
    "maskers": {"stripes": "own_stripes:Stripes"},
    "targets": {"own": "own_stripes:Own"},
    "decoders": {"head": "own_stripes:Head"},
}
RIVAL = {"maskers": {"stripes": "rival_stripes:Stripes"}, "targets": {"own": "rival_stripes:Own"}}


@pytest.fixture
def plugin(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Install what masks stripes, and what another one calls so."""
    monkeypatch.chdir(tmp_path)
    site.install(
        "maekit-own", OWN, modules={"own_stripes": SOURCE.format(step=3, start=0)}, version="0.1.0"
    )
    site.install("rival", RIVAL, modules={"rival_stripes": SOURCE.format(step=3, start=1)})
    site.uninstall("rival")
    draw_smooth(Path("pictures"), 8, 0)
    return site


def recipe(**changes: Any) -> str:
    pretrain = {"target": {"name": "own"}, "steps": 2, "checkpoint": {"steps": 1}} | changes
    decoder = {"decoder": {"name": "head"}}
    return write_recipe(
        Path("own.yaml"), IMAGES, sets("pictures", "pictures"),
        {"name": "own", "model": decoder, "pretrain": pretrain | {"masker": {"name": "stripes"}}},
        without=("pretrain.masker.ratio",),
    )  # fmt: skip


def unfinished(cli: Cli, out: str) -> None:
    """Train two steps, and leave it as one that was stopped after the first."""
    assert cli("pretrain", recipe(), "--out", out, "-q").code == 0
    run = Path(out)
    (run / "weights.safetensors").unlink()
    (run / "result.json").write_text('{"verb": "pretrain", "exit": 75}')
    for newest in sorted((run / "checkpoints").glob("step-*"))[1:]:
        for file in newest.iterdir():
            file.unlink()
        newest.rmdir()
    (run / "checkpoints/last").write_text("step-00000001\n")


def test_runs_and_weights_name_parts_with_distribution_and_version(cli: Cli, plugin: Site) -> None:
    assert cli("pretrain", recipe(), "--out", "run", "-q").code == 0
    written = yaml.safe_load(Path("run/recipe.yaml").read_text())
    assert written["pretrain"]["masker"]["name"] == "maekit-own/stripes"
    assert written["pretrain"]["target"]["name"] == "maekit-own/own"
    assert written["model"]["decoder"]["name"] == "maekit-own/head"
    assert written["model"]["backbone"]["name"] == "image-vit"
    assert written["plugins"] == {"maekit-own": "0.1.0"}
    assert json.loads(Path("run/env.json").read_text())["plugins"] == {"maekit-own": "0.1.0"}
    header = read_header(Path("run/weights.safetensors"))
    assert (header.masker.name, header.decoder.name) == ("maekit-own/stripes", "maekit-own/head")
    assert header.plugins == {"maekit-own": "0.1.0"}


def test_a_part_that_is_gone_is_named_with_its_distribution(cli: Cli, plugin: Site) -> None:
    unfinished(cli, "run")
    plugin.uninstall("maekit-own")
    lost = cli("pretrain", "run/recipe.yaml", "--resume", "--out", "run")
    assert lost.code == 2
    assert "the masker 'stripes' is of maekit-own 0.1.0, which is not installed" in lost.err
    assert "pip install maekit-own==0.1.0" in lost.err
    assert "run/recipe.yaml:" in lost.err
    plugin.install("rival", RIVAL)  # only the rival is there: it never takes over
    again = cli("pretrain", "run/recipe.yaml", "--resume", "--out", "run")
    assert (again.code, "maekit-own 0.1.0, which is not installed" in again.err) == (2, True)
    by_name = cli("pretrain", recipe(), "model.decoder.name=vit", "--resume", "--out", "run")
    assert by_name.code == 2
    assert "pretrain.masker.name: 'maekit-own/stripes' before, 'rival/stripes' now" in by_name.err


def test_with_a_rival_both_are_known_by_their_distributions(cli: Cli, plugin: Site) -> None:
    unfinished(cli, "run")
    plugin.install("rival", RIVAL)
    bare = cli("pretrain", recipe(), "--resume", "--out", "run")
    assert bare.code == 2
    assert "name one of maekit-own/stripes, rival/stripes" in bare.err
    assert cli("pretrain", "run/recipe.yaml", "--resume", "--out", "run", "-q").code == 0
    plugin.uninstall("rival")
    assert cli("pretrain", recipe(), "--out", "straight", "-q").code == 0
    assert same_weights("run", "straight")
    picture = "pictures/000.png"
    plugin.install("rival", RIVAL)
    assert cli("reconstruct", picture, "--from", "run", "--out", "seen").code == 0


def test_a_built_in_that_is_called_so_later_changes_no_run(
    cli: Cli, plugin: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished(cli, "run")
    known = registry._entries

    def later(path: tuple[str, ...]) -> tuple[registry.Entry, ...]:
        """Let maekit itself have a masker `stripes` now."""
        (random,) = (each for each in known(path) if each.full_name == "maekit/random")
        from dataclasses import replace

        return (replace(random, name="stripes"), *known(path))

    later.cache_clear = known.cache_clear
    monkeypatch.setattr(registry, "_entries", later)
    bare = cli("pretrain", recipe(), "pretrain.masker.ratio=0.5", "--resume", "--out", "run")
    assert bare.code == 2
    assert "pretrain.masker.name: 'maekit-own/stripes' before, 'stripes' now" in bare.err
    assert cli("pretrain", "run/recipe.yaml", "--resume", "--out", "run", "-q").code == 0


def test_another_version_is_said(cli: Cli, plugin: Site) -> None:
    unfinished(cli, "run")
    plugin.install("maekit-own", OWN, version="0.2.0")
    resumed = cli("pretrain", "run/recipe.yaml", "--resume", "--out", "run")
    assert resumed.code == 0
    said = "maekit-own was 0.1.0 then, and is 0.2.0 now"
    assert said in resumed.err
    assert yaml.safe_load(Path("run/recipe.yaml").read_text())["plugins"] == {"maekit-own": "0.2.0"}
    plugin.install("maekit-own", OWN, version="0.3.0")
    embedded = cli("embed", "pictures", "--from", "run", "--out", "features.npz")
    assert (embedded.code, "maekit-own was 0.2.0 then" in embedded.err) == (0, True)


def test_what_a_verb_does_not_need_may_be_missing(cli: Cli, plugin: Site) -> None:
    assert cli("pretrain", recipe(), "--out", "run", "-q").code == 0
    plugin.uninstall("maekit-own")
    assert cli("embed", "pictures", "--from", "run", "--out", "features.npz").code == 0
    assert cli("weights", "inspect", "run").code == 0
    assert cli("report", "run", "--out", "report.html").code == 0
    words = ("finetune.steps=1", "finetune.batch.global=4", "data.train.labels=folders")
    tuned = cli("finetune", "run/recipe.yaml", *words, "--from", "run", "--dry-run")
    assert "not installed" not in tuned.err
    lost = cli("reconstruct", "pictures/000.png", "--from", "run", "--out", "seen")
    assert lost.code == 2
    assert "of maekit-own 0.1.0, which is not installed" in lost.err


def test_a_bare_name_of_maekits_is_never_anothers(plugin: Site) -> None:
    """Whichever part of a run it is: a plugin's of the same name is another one."""
    parts = (("maskers", "random"), ("targets", "pixel"), ("decoders", "vit"))
    plugin.install("rival", {kind: {name: "rival_stripes:Own"} for kind, name in parts})
    for kind, name in parts:
        assert not _same_part(kind, name, f"rival/{name}")
        assert _same_part(kind, name, f"maekit/{name}")
        assert _same_part(kind, f"maekit/{name}", name)
    assert _same_part("maskers", "stripes", "maekit-own/stripes")
    assert not _same_part("maskers", "maekit-own/stripes", "rival/stripes")


def test_a_run_of_before_names_were_kept_is_resumed(cli: Cli, plugin: Site) -> None:
    unfinished(cli, "run")
    file = Path("run/recipe.yaml")
    old = file.read_text().replace("maekit-own/", "").partition("plugins:")[0]
    file.write_text(old)
    resumed = cli("pretrain", "run/recipe.yaml", "--resume", "--out", "run")
    assert resumed.code == 0
    assert "does not say whose 'stripes' it is; maekit-own/stripes is taken" in resumed.err
