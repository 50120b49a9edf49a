"""``maekit plugins new``: a distribution with one part that installs and passes as it is."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path

from maekit.atomic import write_text
from maekit.cli.output import say
from maekit.errors import RecipeError, StorageError
from maekit.registry import KINDS, listed
from maekit.version import __version__

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# How a recipe names a part of each kind, below `extends: quickstart`.
_RECIPES = {
    "masker": "pretrain:\n  masker: {{name: {name}, ratio: 0.75}}\n",
    "target": "pretrain:\n  target: {{name: {name}, cell: 4}}\n",
    "target_fitted": "pretrain:\n  target: {{name: {name}}}\n",
    "target_frozen": "pretrain:\n  target: {{name: {name}, weights: network.safetensors}}\n",
    "backbone": "model:\n  backbone: {{name: {name}, patch: 8}}\n",
    "decoder": "model:\n  decoder: {{name: {name}, width: 128}}\n",
    "dataset": "data:\n  train: {{name: {name}, path: samples}}\n  val: {{split: 0.25}}\n",
}
# The option that names what a part reads, and what a script of maekit.scaffold makes for it.
_FILES = {
    "target_frozen": ("weights", "network.safetensors"),
    "dataset": ("path", "samples"),
}


def new(kind: str, name: str, out: Path | None, *, frozen: bool, fitted: bool) -> int:
    """Write a distribution ``maekit-NAME`` and say what to do with it."""
    template = _template(kind, frozen=frozen, fitted=fitted)
    _check_name(kind, name)
    folder = out or Path(f"maekit-{name}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        msg = "is there already" if folder.is_dir() else "is no folder"
        raise RecipeError(msg, where=str(folder), hint="--out, for another one")
    written = _contents(template, name)
    try:
        for place, text in written.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            write_text(folder / place, text)
    except OSError as error:
        raise StorageError(f"cannot be written: {error}", where=str(folder)) from error
    say(f"wrote {folder}: {', '.join(written)}")
    for line in ("cd " + str(folder), *_commands(template, name)):
        say(line)
    return 0


def _template(kind: str, *, frozen: bool, fitted: bool) -> str:
    """Return the part of maekit.scaffold to start from.

    Raises:
        RecipeError: no such kind, or a variant that it does not have.
    """
    singular = kind.removesuffix("s")
    if f"{singular}s" not in KINDS:
        hint = f"one of {', '.join(each[:-1] for each in KINDS)}"
        raise RecipeError(f"KIND {kind}: no such kind of part", where="command line", hint=hint)
    variant = "_frozen" if frozen else "_fitted" if fitted else ""
    if variant and (singular != "target" or (frozen and fitted)):
        what = "--frozen and --fitted are two ways to start a target"
        raise RecipeError(what, where="command line", hint="leave one, or both, out")
    return singular + variant


def _check_name(kind: str, name: str) -> None:
    module = f"maekit_{name.replace('-', '_')}"
    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or not module.isidentifier():
        what = f"NAME {name}: no name of a part"
        hint = "lower-case letters, digits and hyphens, as in my-part"
        raise RecipeError(what, where="command line", hint=hint)
    plural = f"{kind.removesuffix('s')}s"
    for each in listed(plural):
        if each.name == name:
            what = f"NAME {name}: {each} has it already"
            raise RecipeError(what, where="command line", hint="choose another name")


def _contents(template: str, name: str) -> dict[str, str]:
    """Return the text of every file, by its place in the folder."""
    package = f"maekit_{name.replace('-', '_')}"
    kind = template.partition("_")[0]
    class_name = "".join(word.capitalize() for word in name.split("-"))
    part = _source(template).replace("MyPart", class_name).replace("my-part", name)
    contents = {
        "pyproject.toml": _PYPROJECT.format(
            name=name, package=package, kind=kind, class_name=class_name, allowed=_allowed()
        ),
        "README.md": _readme(template, name),
        ".gitignore": "__pycache__/\n*.egg-info/\ndist/\nruns/\n.venv/\n",
        f"{package}/__init__.py": f'"""{class_name}: a {kind} for maekit."""\n',
        f"{package}/part.py": part,
        f"{package}/py.typed": "",
        f"{package}/recipes/{name}.yaml": f"extends: quickstart\nname: {name}\n"
        + _RECIPES[template].format(name=name),
        "tests/test_part.py": _test(template, package, class_name),
    }
    if template in _FILES:
        contents["make_sample.py"] = _source(f"make_{template}")
    return contents


def _source(module: str) -> str:
    return (files("maekit.scaffold") / f"{module}.py").read_text(encoding="utf-8")


def _allowed() -> str:
    """Return which versions of maekit a part that is written today is for."""
    major, minor = __version__.split(".")[:2]
    return f">={__version__},<{major}.{int(minor) + 1}"


_PYPROJECT = """[build-system]
requires = ["hatchling>=1.26"]
build-backend = "hatchling.build"

[project]
name = "maekit-{name}"
version = "0.1.0"
description = "{class_name}: a {kind} for maekit"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["maekit{allowed}"]

[project.entry-points."maekit.{kind}s"]
{name} = "{package}.part:{class_name}"

[project.entry-points."maekit.recipes"]
{name} = "{package}:recipes"

[tool.hatch.build.targets.wheel]
packages = ["{package}"]
"""


def _test(template: str, package: str, class_name: str) -> str:
    kind = template.partition("_")[0]
    imports = (
        f"from maekit.testing import check_{kind}\n\nfrom {package}.part import {class_name}\n"
    )
    if template not in _FILES:
        return f"{imports}\n\ndef test_part() -> None:\n    check_{kind}({class_name})\n"
    option, file = _FILES[template]
    return (
        f"import runpy\nfrom pathlib import Path\n\nimport pytest\n{imports}\n"
        'MAKE = Path(__file__).parents[1] / "make_sample.py"\n\n\n'
        "def test_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:\n"
        "    monkeypatch.chdir(tmp_path)\n"
        '    runpy.run_path(str(MAKE), run_name="__main__")\n'
        f'    check_{kind}({class_name}, {{"{option}": tmp_path / "{file}"}})\n'
    )


def _commands(template: str, name: str) -> list[str]:
    given = ""
    commands = ["pip install -e ."]
    if template in _FILES:
        option, file = _FILES[template]
        given = f" {option}={file}"
        commands.append("python make_sample.py")
    return [
        *commands,
        f"maekit plugins check maekit-{name}/{name}{given}",
        f"maekit pretrain maekit-{name}/{name} pretrain.steps=20",
    ]


def _readme(template: str, name: str) -> str:
    kind = template.partition("_")[0]
    commands = "\n".join(f"    {line}" for line in _commands(template, name))
    return (
        f"# maekit-{name}\n\nA {kind} for maekit; recipes name it `{name}`.\n\n{commands}\n\n"
        "`python -m pytest tests` checks every promise of `maekit.contracts` that it makes.\n"
    )
