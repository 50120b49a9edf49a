"""What to try where the system refuses a file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from maekit.errors import storage_advice


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EIO, "wait until it answers"),
        (errno.ESTALE, "wait until it answers"),
        (errno.EROFS, "that you can write to"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENAMETOOLONG, "a shorter name"),
        (errno.ENOENT, "check the path"),
    ],
)
def test_advice_fits_the_reason(number: int, advice: str) -> None:
    error = OSError(number, os.strerror(number), "file")
    assert advice in storage_advice(error)


def test_a_working_directory_that_is_gone_is_no_wrong_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    error = FileNotFoundError(errno.ENOENT, "No such file or directory")
    assert "folder that is still there" in storage_advice(error)
