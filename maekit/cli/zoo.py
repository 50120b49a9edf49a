"""``maekit weights list`` and ``get``: weights that their authors published; needs no torch."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import typer

from maekit.cli.output import print_json, print_table, say
from maekit.errors import RecipeError
from maekit.weights.zoo import FILES, PublicFile, address_of, fetch, find


def list_public(*, json: bool) -> int:
    """Print the published files."""
    if json:
        print_json([asdict(file) for file in FILES])
    else:
        rows = [
            (file.name, file.what, file.license.partition(":")[0], file.where) for file in FILES
        ]
        print_table(("name", "what", "license", "address"), rows)
    return 0


def get(name: str, *, yes: bool, url: str | None, out: Path, json: bool) -> int:
    """Fetch one file, and print where it is and what it holds."""
    from maekit.cli.reporters import shown  # imports torch, which the list needs not

    file = find(name)
    address = address_of(file, url)
    say(f"{file.name}: {file.what}", err=True)
    say(f"license: {file.license} ({file.source})", err=True)
    say(f"address: {address}", err=True)
    _agree(file, yes=yes)
    with shown():
        fetched = fetch(file, address, out)
    known = "as its authors say" if file.md5 else "its authors give none"
    if json:
        print_json(
            {
                "name": file.name, "path": str(fetched.path), "address": address,
                "bytes": fetched.bytes, "sha256": fetched.sha256, "md5": fetched.md5,
                "md5_checked": file.md5 is not None, "license": file.license,
                "source": file.source,
            }
        )  # fmt: skip
    else:
        rows = [
            ("file", str(fetched.path)),
            ("bytes", f"{fetched.bytes:,}"),
            ("sha256", fetched.sha256),
            ("md5", f"{fetched.md5} ({known})"),
        ]
        print_table(("fetched", ""), rows)
    return 0


def _agree(file: PublicFile, *, yes: bool) -> None:
    """Ask for agreement to the license, unless ``yes`` gives it.

    Raises:
        RecipeError: it was refused, or nobody is there to answer.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        msg = f"{file.name} is under a license that has to be agreed to: {file.license}"
        raise RecipeError(msg, hint="read it, and give --yes")
    if not typer.confirm("Do you agree to this license?", err=True):
        raise RecipeError("not fetched: its license was not agreed to")
