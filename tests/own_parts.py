"""Distributions of parts, as pip would leave them: metadata on the path, and modules."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from maekit import registry

Parts = dict[str, dict[str, str]]  # kind: {name: "module:Class"}


class Site:
    """A folder on the path that distributions are installed in, and uninstalled from."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._patch = patch
        patch.syspath_prepend(str(folder))

    def install(
        self,
        name: str,
        parts: Parts,
        *,
        version: str = "1.2",
        modules: dict[str, str] | None = None,
    ) -> None:
        """Make a distribution visible.

        Args:
            name: of the distribution.
            parts: its entry points.
            version: another one takes the place of the earlier.
            modules: source by name, where its parts do not stand in a module of the tests.
        """
        self.uninstall(name)
        for module, source in (modules or {}).items():
            (self.folder / f"{module}.py").write_text(source, encoding="utf-8")
            self._patch.delitem(sys.modules, module, raising=False)
        info = self._info(name, version)
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(text, encoding="utf-8")
        groups = [
            f"[maekit.{kind}]\n" + "".join(f"{one} = {value}\n" for one, value in named.items())
            for kind, named in parts.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")
        forget()

    def uninstall(self, name: str) -> None:
        """Take a distribution away, as pip would."""
        for info in self.folder.glob(self._info(name, "*").name):
            shutil.rmtree(info)
        forget()

    def _info(self, name: str, version: str) -> Path:
        return self.folder / f"{name.replace('-', '_').lower()}-{version}.dist-info"


def forget() -> None:
    """Let the registry look at what is installed anew."""
    registry._entries.cache_clear()
