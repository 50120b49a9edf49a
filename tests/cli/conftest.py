"""The command line, called in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

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
