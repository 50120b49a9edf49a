"""The author's page: its commands are run as they stand, one after the other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).with_name("README.md")


@pytest.mark.timeout(1600)  # imports torch a dozen times, in as many processes
@pytest.mark.skipif(
    os.environ.get("VIRTUAL_ENV") is None or shutil.which("pip") is None,
    reason="installs a distribution: needs a virtual environment with pip, as CI has",
)
def test_every_command_of_the_page(tmp_path: Path) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 5
    script = "set -euxo pipefail\n" + "".join(blocks)
    try:
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path, capture_output=True, text=True, timeout=1500, check=False,
        )  # fmt: skip
    finally:
        subprocess.run(
            [sys.executable, "-m", "pip", "uninstall", "-y", "maekit-stripes"],
            capture_output=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "features.npz").is_file()
    assert list((tmp_path / "pictures").glob("*.png"))
