"""Features of whole sets: what is left out, and what is kept on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numerics import close
from toys import Clips, clip_source

from maekit import progress
from maekit.data.bad_files import BadFiles
from maekit.data.batch import BadFile
from maekit.data.loader import Loader
from maekit.errors import DataError, Interrupted, NonFiniteError, RecipeError, StorageError
from maekit.evaluate import predictions
from maekit.evaluate.feature_cache import (
    FeatureSet,
    FeatureShards,
    collect_features,
    collect_shards,
    count_bad,
    raise_on_bad,
    skip_bad,
    source_of,
)
from maekit.evaluate.predictions import Reading
from maekit.evaluate.views import ViewReader, view_reader
from maekit.progress import Progress
from maekit.recipe.schema import DataSpec
from maekit.recipe.sections import Views
from maekit.stop import StopSignal

if TYPE_CHECKING:
    from maekit.evaluate.feature_cache import OnBad

READING = Reading(torch.device("cpu"), 6, 0, 1.0)


def reader(*broken: int) -> ViewReader:
    clips = Clips(
        [clip_source(5, 16 + n, 24, f"{n}.mp4") for n in range(11)], broken=frozenset(broken)
    )
    return view_reader(clips, DataSpec(name="v", frames=1), Views(clips=2), size=(8, 8), channels=3)


def tints(pixels: torch.Tensor) -> torch.Tensor:
    """Mean colors, ``[B, 3]``."""
    return pixels.mean(dim=(2, 3, 4))


def lost(pixels: torch.Tensor) -> torch.Tensor:
    """As above, but those of the fourth view of a batch, of its second sample, are lost."""
    found = tints(pixels)
    if len(found) > 3:
        found[3, 1] = torch.nan
    return found


def test_features_that_are_not_finite_are_an_error_or_left_out() -> None:
    for on_bad in (raise_on_bad, count_bad(BadFiles(None, 11, 0.5))):
        with pytest.raises(NonFiniteError, match=r"1\.mp4: its features are not finite"):
            collect_features(reader(), {"a": tints, "b": lost}, range(3), READING, on_bad)
    found = collect_features(reader(4), {"a": lost}, range(6), READING, skip_bad)
    assert found.rows.tolist() == [0, 2]
    assert [(bad.file, bad.index) for bad in found.unread] == [
        ("1.mp4", 1),
        ("3.mp4", 3),
        ("4.mp4", 4),
        ("5.mp4", 5),
    ]
    assert np.isfinite(found.features["a"]).all()


def test_a_sample_that_cannot_be_read_says_so_first() -> None:
    """Its place holds no pixels, whose features say nothing."""
    with pytest.raises(DataError, match=r"1\.mp4: cannot be read"):
        collect_features(reader(1), {"a": lost}, range(3), READING, raise_on_bad)


def test_what_has_two_names_is_made_once() -> None:
    calls: list[int] = []

    def counting(pixels: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixels))
        return tints(pixels)

    found = collect_features(reader(), {"a": counting, "b": counting}, range(4), READING)
    assert calls == [6, 6]  # two samples of three views each time
    np.testing.assert_array_equal(found.features["a"], found.features["b"])


@pytest.mark.parametrize("on_bad", [raise_on_bad, skip_bad])
def test_shards_are_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_bad: OnBad
) -> None:
    monkeypatch.setattr(progress, "_SECONDS", 0)
    broken = () if on_bad is raise_on_bad else (2, 9)
    extractors = {"a": tints, "b": lambda pixels: pixels.flatten(1)}
    whole = collect_features(reader(*broken), extractors, range(11), READING, on_bad)
    parts = FeatureShards(tmp_path / "x", {"weights": "w"})
    heard: list[Progress] = []

    def listen(event: Progress) -> None:
        heard.append(event)
        stop.requested = "SIGTERM" if (event.done, event.total) == (8, 11) else None

    with StopSignal(signals=False) as stop, progress.listening(listen):
        settings = {"size": 4, "on_bad": on_bad, "what": "features"}
        with pytest.raises(Interrupted):
            collect_shards(reader(*broken), extractors, parts, READING, **settings)  # type: ignore[arg-type]
        assert [parts.has(place) for place in range(3)] == [True, True, False]
        stop.requested = None
        collect_shards(reader(*broken), extractors, parts, READING, **settings)  # type: ignore[arg-type]
    counts = [(each.done, each.total) for each in heard if not each.ended]
    first = [(done, 11) for done in (0, 2, 4, 6, 8)]  # then a signal; two samples at once
    assert counts == [*first, (0, 3), (2, 3), (3, 3)]
    again = FeatureShards(tmp_path / "x", {"weights": "w"}).load_all(4, 11)
    np.testing.assert_array_equal(again.rows, whole.rows)
    np.testing.assert_array_equal(again.features["b"], whole.features["b"])
    close(again.features["a"], whole.features["a"], terms=64)  # means, in other batches
    assert all(again.features[name].dtype == np.float32 for name in extractors)
    assert again.unread == whole.unread
    assert all(isinstance(bad, BadFile) for bad in again.unread)


def test_the_same_workers_read_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    class Counted(Loader):
        def __init__(self, *args: object, **kwargs: object) -> None:
            made.append(self)
            super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(predictions, "Loader", Counted)
    shards = FeatureShards(tmp_path / "x", {})
    collect_shards(reader(), {"a": tints}, shards, READING, size=2, what="features")
    assert len(made) == 1


def test_parts_of_something_else_or_damaged_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    assert source_of(folder) is None
    parts = FeatureShards(folder, {"weights": "one"})
    assert source_of(folder) == "one"
    parts.save(0, FeatureSet(np.arange(2), {"a": np.zeros((2, 1, 3), np.float32)}))
    with pytest.raises(RecipeError, match="other inputs, weights or options"):
        FeatureShards(folder, {"weights": "other"})
    path = folder / "part-00000.npz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StorageError, match=r"part-00000\.npz: this file of features is damaged"):
        parts.load(0)
    parts.remove(pytest.fail)
    assert not folder.exists()
    with pytest.raises(StorageError, match="cannot be written"):
        parts.save(0, FeatureSet(np.arange(0), {}))
