"""What the tests of all plugins share: they run against the installed distributions."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Tests compute with tiny tensors, where a second thread only costs.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests cache out of the user's own cache, and what lies there out of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
