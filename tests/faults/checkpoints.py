"""Fail every file operation of a checkpoint's writing, one at a time.

An operation fails with an error of the system, or "kills": it raises what nobody catches, and from
then on nothing of the process can be done any more, as if it were gone.
"""

from __future__ import annotations

import builtins
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from maekit.weights import safetensors_io

# Where Python's own file operations end; pathlib and shutil call these.
OS = ("open", "fsync", "rename", "replace", "unlink", "remove", "mkdir", "rmdir", "chmod")


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Fault:
    """One fault among the operations below a folder.

    Attributes:
        at: which operation fails, from 1; 0: none, they are only counted.
        number: the error's number; None: a kill.
        after: the operation is done, then the process is gone (only with a kill).
    """

    at: int
    number: int | None = None
    after: bool = False
    count: int = 0
    dead: bool = False

    def around(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return an operation that fails when its turn comes."""

        def operation(*args: Any, **options: Any) -> Any:
            if self.dead:
                raise Killed
            self.count += 1
            if self.count != self.at:
                return real(*args, **options)
            if self.number is not None:
                path = args[0] if args and not isinstance(args[0], int) else None
                raise OSError(self.number, os.strerror(self.number), str(path or name))
            self.dead = True
            if self.after:
                real(*args, **options)
            raise Killed

        return operation


@contextmanager
def faulty(fault: Fault) -> Iterator[None]:
    """Let the operations of a fault's turn fail while the context lasts."""
    with ExitStack() as patches:

        def patch(owner: Any, name: str, shown: str) -> None:
            real = getattr(owner, name)
            patches.enter_context(mock.patch.object(owner, name, fault.around(shown, real)))

        for name in OS:
            patch(os, name, name)
        opened = fault.around("open", io.open)
        patches.enter_context(mock.patch.object(io, "open", opened))
        patches.enter_context(mock.patch.object(builtins, "open", opened))
        for name in ("write_bytes", "write_text", "touch"):
            patch(Path, name, name)
        patch(shutil, "rmtree", "rmtree")
        patch(safetensors_io, "save_file", "save_file")
        yield
