"""The ledger of bad files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maekit.data.bad_files import BadFiles
from maekit.data.batch import BadFile
from maekit.errors import DataError


def bad(index: int) -> BadFile:
    return BadFile(f"f{index}.jpg", "is truncated", index)


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_file_is_recorded_once_also_after_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "bad_files.jsonl"
    ledger = BadFiles(path, 1000, 0.5)
    ledger.add([bad(1), bad(2), bad(1)], step=3)
    ledger.add([bad(2)], step=4)
    with path.open("a") as file:
        file.write('{"file": "torn')
    resumed = BadFiles(path, 1000, 0.5)
    assert len(resumed) == 2
    resumed.add([bad(2), BadFile("日本\udcff\n.jpg", "odd name", 7)], step=5)
    assert [row["file"] for row in rows(path)] == ["f1.jpg", "f2.jpg", "日本\udcff\n.jpg"]
    first = {"file": "f1.jpg", "reason": "is truncated", "index": 1, "step": 3}
    assert rows(path)[0] == first | {"set": "data.train"}
    assert len(BadFiles(path, 1000, 0.5, section="data.val")) == 0
    assert len(BadFiles(path, 1000, 0.5)) == 3


def test_too_many_end_the_run_but_never_fewer_than_ten() -> None:
    ledger = BadFiles(None, 100, 0.01)
    for index in range(9):
        ledger.add([bad(index)], step=0)
    with pytest.raises(DataError, match=r"10 files of 100 .*is truncated") as error:
        ledger.add([bad(9)], step=0)
    assert error.value.exit_code == 6
    assert "max_bad_fraction" in str(error.value)


def test_none_is_tolerated_where_the_recipe_says_so() -> None:
    ledger = BadFiles(None, 19, 0.0)
    with pytest.raises(DataError, match=r"1 files of 19"):
        ledger.add([bad(3)], step=0)


def test_the_limit_is_exceeded_not_reached() -> None:
    ledger = BadFiles(None, 1000, 0.02)
    ledger.add([bad(index) for index in range(20)], step=0)
    with pytest.raises(DataError):
        ledger.add([bad(20)], step=0)


def test_all_bad_ends_the_run_whatever_is_allowed() -> None:
    ledger = BadFiles(None, 3, 1.0)
    ledger.add([bad(0), bad(1)], step=0)
    with pytest.raises(DataError, match="none of the 3 samples"):
        ledger.add([bad(2)], step=0)


def test_another_file_in_its_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad_files.jsonl"
    path.write_text("hello\n")
    with pytest.raises(DataError, match=r"bad_files\.jsonl:1"):
        BadFiles(path, 3, 1.0)


def test_the_first_is_said_while_the_run_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    files = BadFiles(tmp_path / "bad_files.jsonl", 100, 0.5, warn=said.append)
    files.add([BadFile("a.jpg", "cut short", 3)], 1)
    files.add([BadFile("b.jpg", "empty", 4), BadFile("a.jpg", "cut short", 3)], 2)
    assert said == ["a.jpg cannot be read: cut short; bad_files.jsonl lists such files"]
