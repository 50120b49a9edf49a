"""``maekit plugins new`` and ``plugins check``: what is written installs, passes, and trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement

from maekit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

# Kind and flag, and what the part needs to be built.
ALL = {
    "masker": (("masker",), ()),
    "target": (("target",), ()),
    "fitted": (("target", "--fitted"), ()),
    "frozen": (("target", "--frozen"), ("weights=network.safetensors",)),
    "backbone": (("backbone",), ()),
    "decoder": (("decoder",), ()),
    "dataset": (("dataset",), ("path=samples",)),
}
TINY = ("pretrain.steps=1", "pretrain.batch.global=4", "~pretrain.warmup")


def write(cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str) -> dict[str, Any]:
    """Write a plugin here and install it as a wheel would; return its pyproject."""
    (kind, *flags), _ = ALL[name]
    made = cli("plugins", "new", kind, f"new-{name}", *flags)
    assert made.code == 0, made.err
    folder = Path(f"maekit-new-{name}").absolute()
    project: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"maekit_new_{name}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1.0\n"
    )
    groups = "".join(
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
        for group, points in project["entry-points"].items()
    )
    (info / "entry_points.txt").write_text(groups)
    monkeypatch.syspath_prepend(str(folder))
    for module in [each for each in sys.modules if each.startswith("maekit_new_")]:
        monkeypatch.delitem(sys.modules, module)  # another test's, of another folder
    return project


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_new_masker_is_checked_and_trains(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    project = write(cli, monkeypatch, "masker")
    (needed,) = project["dependencies"]
    assert Requirement(needed).specifier.contains(__version__, prereleases=True)
    written = {str(file.relative_to("maekit-new-masker")) for file in Path().rglob("*.*")}
    assert {
        ".gitignore",
        "README.md",
        "tests/test_part.py",
        "maekit_new_masker/py.typed",
    } <= written
    recipe = Path("maekit-new-masker/maekit_new_masker/recipes/new-masker.yaml").read_text()
    assert len(recipe.splitlines()) <= 6
    checked = cli("plugins", "check", "maekit-new-masker", "--json")
    (part,) = json.loads(checked.out)["parts"]
    assert (checked.code, part["name"], part["version"]) == (0, "new-masker", "0.1.0")
    assert all(each["broken"] is None for each in part["promises"])
    assert "new-masker" in cli("plugins", "list", "--kind", "maskers").out
    again = cli("plugins", "new", "masker", "new-masker")
    assert (again.code, "has it already" in again.err) == (2, True)


def test_what_is_broken_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    write(cli, monkeypatch, "masker")
    part = Path("maekit-new-masker/maekit_new_masker/part.py")
    text = part.read_text()
    part.write_text(text.replace("rng.permutation", "np.random.default_rng(0).permutation"))
    words = ("plugins", "check", "new-masker", "ratio=0.5")
    costly = ("--without", "draws_the_same_in_a_worker_without_torch")
    checked = cli(*words, *costly)
    assert checked.code == 2
    assert "breaks 1 promise: draws_from_its_generator_only" in checked.err
    assert cli(*words, "--without", "draws_from_its_generator_only", *costly).code == 0


def test_what_cannot_be_checked_is_said(cli: Cli) -> None:
    missing = cli("plugins", "check", "maekit/images")
    assert missing.code == 2
    assert "maekit plugins check maekit/images path=..." in missing.err
    assert "did you mean" in cli("plugins", "check", "blok").err
    assert "no such option" not in cli("plugins", "check", "grid", "cell=[1,2]", "--json").err
    unknown = cli("plugins", "check", "random", "ratios=0.5")
    assert (unknown.code, "ratios" in unknown.err) == (2, True)
    assert cli("plugins", "new", "masker", "Not A Name").code == 2
    assert cli("plugins", "new", "optimizer", "mine").code == 2
    assert cli("plugins", "new", "masker", "mine", "--frozen").code == 2


@pytest.mark.slow
def test_the_tests_that_are_written_pass(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ALL:
        write(cli, monkeypatch, name)
    # With one thread, as all that tests start.
    environment = os.environ | {"PYTHONPATH": ":".join(each for each in sys.path if each)}
    tests = subprocess.run(
        # Their files have one name: each alone may be imported as it is, all together may not.
        [sys.executable, "-m", "pytest", "--import-mode=importlib", "-p", "no:cacheprovider",
         *(f"maekit-new-{name}/tests" for name in ALL)],
        check=False, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert tests.returncode == 0, tests.stdout[-2000:]
    assert f"{len(ALL)} passed" in tests.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_kind_installs_passes_and_trains(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write(cli, monkeypatch, name)
    folder, given = Path(f"maekit-new-{name}").absolute(), ALL[name][1]
    if given:
        subprocess.run([sys.executable, str(folder / "make_sample.py")], check=True)
    checked = cli("plugins", "check", f"maekit-new-{name}/new-{name}", *given)
    assert checked.code == 0, checked.err
    sets = () if name == "dataset" else ("data.train.count=12", "~data.val")
    run = cli("pretrain", f"maekit-new-{name}/new-{name}", "-q", *TINY, *sets, "--out", "run")
    assert run.code == 0, run.err
    assert cli("embed", "--set", "train", "--from", "run", "--out", "set.npz", "-q").code == 0
