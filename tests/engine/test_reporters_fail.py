"""What nobody needs never ends a training; what is needed says what is wrong."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from maekit.engine.events import Event, Measured, Note
from maekit.engine.reporters import Dispensable, JsonLines, LogFile
from maekit.errors import StorageError


class Full:
    name = "x"

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        pass


def test_a_log_that_fails_is_said_once(tmp_path: Path) -> None:
    said: list[Event] = []
    log = Dispensable(lambda: LogFile(tmp_path / "log.txt"), "log.txt", said.append)
    log(Note("one"))
    log.use(lambda each: setattr(each, "file", Full()))
    for _ in range(3):
        log(Note("two"))
    log.close()
    assert (tmp_path / "log.txt").read_text().endswith("one\n")
    (note,) = said
    assert isinstance(note, Note)
    assert "log.txt is not written any more" in note.text


def test_a_log_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    (tmp_path / "log.txt").mkdir()
    said: list[Event] = []
    log = Dispensable(lambda: LogFile(tmp_path / "log.txt"), "log.txt", said.append)
    log(Note("one"))
    assert len(said) == 1


def test_metrics_that_cannot_be_written_end_the_run(tmp_path: Path) -> None:
    lines: Any = JsonLines(tmp_path / "metrics.jsonl")
    lines.file = Full()
    with pytest.raises(StorageError, match="No space left"):
        lines(Measured(1, "holdout", {"loss": 1.0}))
