"""``reconstruct --set``: samples of the run's own sets, also where there are no files at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

DRAWN = "{name: sample-images, count: 12, size: 32, cache: cache}"


def test_samples_that_are_drawn(cli: Cli, small: str) -> None:
    sets = (f"data.train={DRAWN}", "~data.val")
    assert cli("pretrain", small, "-q", "pretrain.steps=1", *sets).code == 0
    made = cli("reconstruct", "--set", "train", "--from", "runs/small/1", "--out", "all", "--json")
    assert made.code == 0, made.err
    items = json.loads(made.out)["items"]
    assert len(items) == 8  # of 12, evenly spaced
    assert all(item["psnr"] is not None for item in items)
    assert len({item["output"] for item in items}) == 8
    one = cli(
        "reconstruct", items[3]["input"], "--set", "train", "--from", "runs/small/1",
        "--out", "one", "--json",
    )  # fmt: skip
    again = json.loads(one.out)["items"]
    assert [each["input"] for each in again] == [items[3]["input"]]
    none = cli("reconstruct", "--set", "val", "--from", "runs/small/1", "--out", "none")
    assert (none.code, "the run has no data.val" in none.err) == (2, True)
