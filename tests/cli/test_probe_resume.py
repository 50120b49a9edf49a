"""``maekit probe --resume``: what goes on, and what is refused and left as it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from small_runs import result_of, stopped_after_shards

from maekit.data.batch import CUT
from maekit.evaluate import probe as probing
from maekit.evaluate.feature_cache import FeatureShards

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    from maekit.evaluate.feature_cache import FeatureSet

    Cli = Callable[..., Result]

SCRATCH = ("--from", "scratch")
KNN = ("--kind", "knn")


def files(folder: str) -> dict[str, bytes]:
    """Return what is in a folder, beside the lock and the log that every call writes to."""
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in paths if path.name not in ("lock", "log.txt")}


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Parts of five samples; those that are written, as (set, number)."""
    monkeypatch.setattr(probing, "SHARD_SIZE", 5)
    found: list[tuple[str, int]] = []
    save = FeatureShards.save

    def listening(self: FeatureShards, number: int, made: FeatureSet) -> None:
        found.append((self.folder.name, number))
        save(self, number, made)

    monkeypatch.setattr(FeatureShards, "save", listening)
    return found


@pytest.mark.parametrize("protocol", ["cached", "paper"])
def test_a_run_of_another_verb_is_left_as_it_was(cli: Cli, labeled: str, protocol: str) -> None:
    assert cli("pretrain", labeled, "-q", "--out", "pre").code == 0
    before = files("pre")
    words = (labeled, f"probe.protocol={protocol}", "--from", "pre", "--out", "pre")
    refused = cli("probe", *words, "--resume")
    assert refused.code == 2
    assert "a run of `maekit pretrain`, not probe" in refused.err
    assert files("pre") == before


def test_a_finished_probe_is_told_again_and_no_other_takes_its_place(
    cli: Cli, labeled: str
) -> None:
    first = cli("probe", labeled, *KNN, *SCRATCH, "--out", "out", "--json", "-q")
    assert first.code == 0
    before = files("out")
    again = cli("probe", labeled, *KNN, "--out", "out", "--resume", "--json")
    assert (again.code, again.out) == (0, first.out)
    assert "out is finished" in again.err
    compared = cli("probe", labeled, *KNN, "--out", "out", "--resume", "--compare-expected")
    assert "inside" in compared.out
    paper = (
        "probe.protocol=paper",
        "probe.steps=2",
        "probe.warmup.steps=0",
        "probe.batch.global=8",
    )
    for other in (["--kind", "attentive"], ["--kind", "linear", *paper]):
        refused = cli("probe", labeled, *other, *SCRATCH, "--out", "out", "--resume")
        assert refused.code == 2
        assert "probe.kind: 'knn' before" in refused.err
    assert files("out") == before


def cut_files(folder: str) -> int:
    """Count the pictures of which 16 x 24 pixels show less than nine tenths."""
    sizes = [Image.open(path).size for path in Path(folder).rglob("*.png")]
    return sum(width / height < 0.9 * 24 / 16 for width, height in sizes)


@pytest.mark.parametrize("kind", ["linear", "knn", "attentive"])
def test_an_interrupted_probe_goes_on_with_the_features_that_it_has(
    cli: Cli, labeled: str, kind: str, kept: list[tuple[str, int]]
) -> None:
    words = (labeled, "--kind", kind)
    assert cli("pretrain", labeled, "-q", "--out", "runs/labeled/1").code == 0
    assert cli("probe", *words, "-q", "--out", "whole").code == 0
    kept.clear()
    with pytest.MonkeyPatch.context() as patch:
        stopped_after_shards(patch, 5)  # three parts of data.val, two of data.train
        stopped = cli("probe", *words, "--out", "cut")
    assert stopped.code == 75
    assert "continue with maekit probe cut/recipe.yaml" in stopped.err
    assert "--resume --out cut" in stopped.err
    assert result_of("cut")["exit"] == 75
    assert Path("cut/log.txt").read_text().splitlines()[-2].endswith(" exit 75: interrupted")
    # A newer pre-training is not taken in the middle of a probe.
    assert cli("pretrain", labeled, "-q", "--seed", "3").code == 0
    other = cli("probe", *words, "probe.pixels=4", "--out", "cut", "--resume")
    assert other.code == 2
    assert "probe.pixels: 8 before, 4 now" in other.err
    resumed = cli("probe", *words, "--out", "cut", "--resume", "-q")
    assert resumed.code == 0, resumed.err
    parts = [("data.val", n) for n in range(3)] + [("data.train", n) for n in range(8)]
    assert kept == parts  # none twice
    assert not Path("cut/features").exists()
    whole, cut = (
        {k: v for k, v in result_of(out).items() if k not in ("seconds", "predictions")}
        for out in ("whole", "cut")
    )
    assert whole == cut
    cut_of = {key: cut_files(f"pictures/{key}") for key in ("train", "val")}
    assert whole["left_out"] == {f"data.{key}": {CUT: count} for key, count in cut_of.items()}
    one, same = (Path(out, "predictions.jsonl").read_bytes() for out in ("whole", "cut"))
    assert one == same


def test_a_probe_that_is_stopped_while_fitting_keeps_its_features(
    cli: Cli, labeled: str, kept: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probing, "fit_head", stopping)
        assert cli("probe", labeled, *SCRATCH, "-q").code == 130
    made = len(kept)
    assert made == 11
    # Without --out it is the newest unfinished one that goes on.
    assert cli("probe", labeled, "--resume", "-q").code == 0
    assert len(kept) == made
    assert result_of("runs/labeled/1")["exit"] == 0


def test_features_of_files_that_changed_are_refused(
    cli: Cli, labeled: str, kept: list[tuple[str, int]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stopped_after_shards(patch, 5)
        assert cli("probe", labeled, *KNN, *SCRATCH, "-q", "--out", "cut").code == 75
    path = Path("pictures/val/red/00.png")
    path.write_bytes(path.read_bytes() + b"\0")
    refused = cli("probe", labeled, *KNN, "--out", "cut", "--resume")
    assert refused.code == 2
    assert "other inputs, weights or options" in refused.err
