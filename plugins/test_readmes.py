"""READMEs of plugins: the recipes that they show can be written, and what they name is there."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

from maekit.cli.app import main
from maekit.recipe.shipped import from_plugins

READMES = sorted(Path(__file__).parent.glob("maekit-*/README.md"))


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_recipes_of_readmes(
    readme: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = readme.parent.name
    installed = {each.metadata["Name"] for each in metadata.distributions()}
    if name not in installed:
        pytest.skip(f"{name} is not installed: pip install plugins/{name}")
    text = readme.read_text(encoding="utf-8")
    shown = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert shown
    for number, block in enumerate(shown):
        clips = name == "maekit-motion" or "frames:" in block
        parent = "videomae_k400" if clips else "mae_in1k_vit_b"
        file = tmp_path / f"{number}.yaml"
        file.write_text(f"extends: {parent}\n{block}", encoding="utf-8")
        with pytest.raises(SystemExit) as ended:
            main(["recipes", "validate", str(file)])
        assert not ended.value.code, capsys.readouterr().err
    named = set(re.findall(rf"\b{name}/\w+", text))
    recipes, _ = from_plugins()
    assert named
    assert named <= {*recipes, f"plugins/{name}"}


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_sweeps_of_plugins_can_be_listed(
    readme: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    name = readme.parent.name
    own = [each for each in from_plugins()[0] if each.startswith(f"{name}/")]
    sweeps = [each for each in own if each.endswith("_ablation")]
    if not own:
        pytest.skip(f"{name} is not installed: pip install plugins/{name}")
    monkeypatch.chdir(tmp_path)
    for each in sweeps:
        with pytest.raises(SystemExit) as ended:
            main(["ablate", each, "--list"])
        out, err = capsys.readouterr()
        assert not ended.value.code, err
        assert "norm-pixel (base)" in out
    assert len(sweeps) == (name != "maekit-hdf5")
