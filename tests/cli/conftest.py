"""The command line, called in this process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from labeled import RECIPE as LABELED
from labeled import paint
from small_runs import RECIPE, draw
from two_classes import RECIPE as TWO
from two_classes import draw as draw_two

from maekit.cli.app import main

if TYPE_CHECKING:
    from collections.abc import Callable


class Result(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """``cli("recipes", "list")`` runs a command and returns its code, stdout and stderr."""

    def call(*words: str) -> Result:
        with pytest.raises(SystemExit) as ended:
            main(words)
        captured = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int) or code is None
        return Result(code or 0, captured.out, captured.err)

    return call


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A recipe over 50 pictures, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "pictures" / "train", 50, seed=0)
    draw(tmp_path / "pictures" / "val", 9, seed=1)
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE.format(pictures=tmp_path / "pictures"))
    return str(path)


@pytest.fixture
def labeled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A recipe over 36 pictures of three classes, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "pictures" / "train", 12, seed=0)
    paint(tmp_path / "pictures" / "val", 4, seed=1)
    path = tmp_path / "labeled.yaml"
    path.write_text(LABELED.format(pictures=tmp_path / "pictures"))
    return str(path)


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A recipe over two classes of pictures, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    draw_two(tmp_path / "pictures" / "train", 40, seed=0)
    draw_two(tmp_path / "pictures" / "val", 16, seed=1)
    path = tmp_path / "two.yaml"
    path.write_text(TWO.format(folder=tmp_path / "pictures"))
    return str(path)
