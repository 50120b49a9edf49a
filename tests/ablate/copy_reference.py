"""Copy the papers' tables that ablation recipes name into recipes/ablations/reference.json.

Run by hand where a recipe names another table: python tests/ablate/copy_reference.py TABLES.json
with all tables, as lists of ``{id, paper, table, title, setting, columns, rows, source}``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from maekit.recipe.load import read_tree
from maekit.recipe.shipped import shipped

KEYS = ("id", "paper", "table", "title", "setting", "columns", "rows", "default_row", "source",
        "confidence", "notes")  # fmt: skip
TARGET = Path(__file__).resolve().parents[2] / "recipes" / "ablations" / "reference.json"


def named_tables() -> list[str]:
    """List the tables that the shipped ablations name, each once."""
    found = []
    for name, path in shipped().items():
        node = read_tree(path).at(("ablate", "reference", "table"))
        if name.startswith("ablations/") and node is not None:
            found.append(str(node.value))
    return sorted(set(found))


def copied(tables: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the named tables with the keys that are of use, their numbers untouched.

    Their words are spelled as all of maekit's are.
    """
    american = json.dumps(tables).replace("unnormalised", "unnormalized")
    known = {table["id"]: table for table in json.loads(american)}
    return [
        {key: known[name][key] for key in KEYS if key in known[name]} for name in named_tables()
    ]


if __name__ == "__main__":
    every = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    text = json.dumps(copied(every), indent=1, ensure_ascii=False)
    TARGET.write_text(text + "\n", encoding="utf-8")
