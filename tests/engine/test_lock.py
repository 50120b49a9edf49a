"""One process, and one thread, at a time in a folder."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from typing import Any

import pytest

from maekit.engine.lock import held_lock, in_use
from maekit.errors import StorageError


def test_one_thread_keeps_another_out(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with held_lock(lock):
        assert in_use(lock)
        with pytest.raises(StorageError, match="in use by this process"), held_lock(lock):
            pass
        assert in_use(lock)  # the refused one has not taken it away
    with held_lock(lock):
        pass
    assert not in_use(lock)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_is_said_and_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def none(*args: Any) -> None:
        raise OSError(number, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with pytest.raises(StorageError, match="no locks") as refused, held_lock(tmp_path / "lock"):
        pass
    assert "--no-lock" in str(refused.value)
    assert not (tmp_path / "lock").exists()  # the folder is as it was, for a second try
    with held_lock(tmp_path / "lock", locks=False):
        assert in_use(tmp_path / "lock")
