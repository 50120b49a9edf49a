"""The table of a training's result: by which protocol, and of how many views, its numbers are."""

from __future__ import annotations

from pathlib import Path

import pytest

from maekit.cli.result import print_result

RESULT = {"steps": 4, "seconds": 60.0, "loss_first": 1.0, "loss_last": 0.5, "bad_files": 0}


@pytest.mark.parametrize(
    ("single", "told"), [(0.5, []), (0.25, [["one", "view:", "top1", "0.2500"]]), (None, [])]
)
def test_protocol_and_views_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], single: float | None, told: list[list[str]]
) -> None:
    views = None if single is None else {"top1": single}
    result = RESULT | {"protocol": "linear/paper", "top1": 0.5, "single_view": views}
    print_result(result, tmp_path, next_steps=[], json=False, quiet=True)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["protocol", "linear/paper"] in rows
    assert ["top1", "0.5000"] in rows
    assert [row for row in rows if row[:2] == ["one", "view:"]] == told
