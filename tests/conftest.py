"""Fixtures that every test may use."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from own_parts import Site, forget

# Tests compute with tiny tensors, where a second thread only costs; subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell that starts pytest in the background has it ignore SIGINT, and with it what tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# A busy machine is no mistake.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests cache out of the user's own cache, and what lies there out of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images and videos beside the checkout; tests skip where they are not."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real data missing: no ../shared/data beside the checkout")
    return SHARED_DATA


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Return a folder on the path that distributions are installed in."""
    yield Site(tmp_path / "site", monkeypatch)
    forget()
