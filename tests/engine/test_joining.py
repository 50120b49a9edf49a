"""Ranks wait for each other at the start, and not for ever."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from maekit.engine import distributed
from maekit.errors import RankError
from maekit.ranks import MEETING


@pytest.mark.parametrize("by", ["our starter", "a launcher"])
def test_a_rank_that_never_comes_is_said(
    by: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    place = {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "3"}
    launcher = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ours = {MEETING: str(tmp_path / "ranks")}
    for name, value in (place | (ours if by == "our starter" else launcher)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "JOINING", timedelta(seconds=1))
    with (
        pytest.raises(RankError, match=r"cannot join the others: .*1(/| of )3"),
        distributed.joined(torch.device("cpu")),
    ):
        pytest.fail("it is alone")
    assert distributed.size() == 1
