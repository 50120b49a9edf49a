"""The user's cache: what can be had again, but took time."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``maekit`` in XDG_CACHE_HOME, or in ~/.cache; not created."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # A relative XDG_CACHE_HOME is to be ignored (XDG Base Directory Specification).
    base = base if base.is_absolute() else Path("~/.cache").expanduser()
    return base / "maekit"
