"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from maekit.atomic import PARTIAL, make_folder_atomically, sweep, write_atomically, write_text


@pytest.fixture(params=[0o022, 0o002, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_get_the_mode_that_the_umask_gives(tmp_path: Path, umask: int) -> None:
    """safetensors by itself makes files that only their owner can read."""
    write_text(tmp_path / "text", "as is\n")
    tensors = {"a": torch.zeros(2)}
    write_atomically(tmp_path / "tensors", lambda draft: save_file(tensors, draft))
    assert mode(tmp_path / "text") == mode(tmp_path / "tensors") == 0o666 & ~umask
    assert (tmp_path / "text").read_bytes() == b"as is\n"


def fail(draft: Path) -> None:
    (draft / "half" if draft.is_dir() else draft).write_text("half")
    msg = "no space"
    raise OSError(msg)


def test_a_failed_file_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    write_text(path, "old")
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no space"):
        make_folder_atomically(tmp_path / "made", fail)
    assert not list(tmp_path.iterdir())


def test_a_filled_folder_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "made"
    for text in ("first", "second"):

        def fill(draft: Path, text: str = text) -> None:
            write_text(draft / "file", text)

        if text == "first":
            make_folder_atomically(path, fill)
        else:
            with pytest.raises(OSError, match="not empty"):
                make_folder_atomically(path, fill)
    assert (path / "file").read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_is_swept_and_a_running_one_is_not(tmp_path: Path) -> None:
    drafts: list[Path] = []

    def killed(draft: Path) -> None:
        draft.rename(draft.with_name(f"{draft.name}-left"))  # as if cleaning up had not come
        drafts.append(draft.with_name(f"{draft.name}-left"))

    for name in ("old", "young"):
        with pytest.raises(FileNotFoundError):
            write_atomically(tmp_path / name, killed)
    assert all(draft.name.startswith(PARTIAL) for draft in drafts)
    os.utime(drafts[0], (1, 1))
    sweep(tmp_path, older_than=3600)
    assert list(tmp_path.iterdir()) == [drafts[1]]
    sweep(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_that_cannot_flush_is_written_to(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(Path, "chmod", refuse)  # nor has it modes
    write_atomically(tmp_path / "tensors", lambda draft: save_file({"a": torch.zeros(2)}, draft))
    make_folder_atomically(tmp_path / "folder", lambda draft: write_text(draft / "a", "a"))
    assert {each.name for each in tmp_path.iterdir()} == {"tensors", "folder"}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EISDIR, errno.EPERM, errno.EBADF])
def test_a_folder_that_cannot_be_opened_is_written_to(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: str | Path, *words: int, **more: int) -> int:
        if os.path.isdir(path):  # noqa: PTH112
            raise OSError(number, os.strerror(number))
        return real(path, *words, **more)

    monkeypatch.setattr(os, "open", refuse)
    write_text(tmp_path / "text", "as is")
    assert (tmp_path / "text").read_text() == "as is"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_flush_that_fails_is_told(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_to_flush(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail_to_flush)
    with pytest.raises(OSError, match=os.strerror(number)):
        write_text(tmp_path / "text", "as is")
    assert not list(tmp_path.iterdir())
