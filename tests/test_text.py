"""Names that are no text, and names that would steer a terminal."""

from __future__ import annotations

import os

import pytest

from maekit.errors import DataError
from maekit.text import as_text, carried, printable, restored


@pytest.mark.parametrize(("name", "shown"), [
    ("a\x1b]0;OWNED\x07.jpg", r"a\x1b]0;OWNED\x07.jpg"),
    ("\x1b[2Jb", r"\x1b[2Jb"),
    ("c\rd\x7f\x9b31m", r"c\x0dd\x7f\x9b31m"),
    ("gpj\u202e.exe", r"gpj\u202e.exe"),
    (os.fsdecode(b"\xe9t\xe9"), r"\xe9t\xe9"),
    (carried(os.fsdecode(b"\xe9t\xe9")), r"\xe9t\xe9"),
    ("été 日本\t\n", "été 日本\t\n"),
])  # fmt: skip
def test_what_goes_to_a_terminal_is_text(name: str, shown: str) -> None:
    assert printable(name) == shown
    assert printable(name, lines=False) == shown.replace("\n", "\\n")


@pytest.mark.parametrize("raw", [b"\xe9", b"a\xff\x80b", "日本".encode(), b"plain"])
def test_bytes_that_are_not_utf8_are_carried_and_come_back(raw: bytes) -> None:
    name = os.fsdecode(raw)
    carried(name).encode()
    as_text(name).encode()
    assert restored(carried(name)) == name
    assert (as_text(name) == name) == (raw.decode("utf-8", "replace") == name)


def test_errors_name_a_place_on_one_line() -> None:
    error = DataError("broken", where="a\n\x1b[2J.jpg")
    assert str(error) == "a\\n\\x1b[2J.jpg: broken"
