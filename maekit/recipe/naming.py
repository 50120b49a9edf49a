"""What a recipe file of one's own begins with: its name, and where editors find its schema."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from maekit.text import as_text

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = "recipe.schema.json"
MODELINE = f"# yaml-language-server: $schema={SCHEMA}"
_NO_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
_NAME = re.compile(r"^name:[^#\n]*?([ \t]+#[^\n]*)?$", re.MULTILINE)


def name_for(path: Path) -> str:
    """Return the name of a recipe in a file: its stem, as far as a name may hold it."""
    name = _NO_NAME.sub("-", as_text(path.stem)).strip("-_.")[:100]
    return name or "mine"


def renamed(text: str, name: str) -> str:
    """Return a recipe's text with another name, and the line by which editors find its schema."""
    line = f"name: {name}"
    changed, found = _NAME.subn(lambda old: f"{line}{old[1] or ''}", text, count=1)
    if not found:  # its parent's
        first = next(re.finditer(r"^[^#\s]", text, re.MULTILINE), None)
        start = len(text) if first is None else first.start()
        changed = f"{text[:start]}{line}\n{text[start:]}"
    return changed if "yaml-language-server" in text else f"{MODELINE}\n{changed}"
