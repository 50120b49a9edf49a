"""The loader: the same batches inline and from workers, whatever happens to the workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from loader_fakes import LABELS, BrightHidden, Fakes, Labeled, Mixed, Unborn, Unsteady, make_reader

from maekit.contracts import Boxes, View
from maekit.data import shared_memory
from maekit.data.batch import Batch
from maekit.data.loader import Loader
from maekit.data.order import Key, Order, Stream
from maekit.data.reader import SampleReader
from maekit.datasets.images import Images
from maekit.errors import PartError, RankError, StorageError

ROOT = Path(__file__).resolve().parents[2]


def read_all(
    reader: SampleReader, batches: list[list[Key]], workers: int, **options: float
) -> list[Batch]:
    with Loader(reader, batches, workers=workers, **{"timeout": 120.0, **options}) as loader:
        return list(loader)


def plan(samples: int, batch: int, steps: int) -> list[list[Key]]:
    stream = Stream(Order(samples, seed=1), batch)
    return [stream.keys(step) for step in range(steps)]


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.keys, a.bad) == (b.keys, b.bad)
        for name in ("hidden", "decode", "weight", "labels"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        for x, y in zip(a.views, b.views, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("dataset", [Fakes(), Fakes(dtype="float32"), Mixed()])
def test_any_number_of_workers_gives_the_same_batches(dataset: Fakes) -> None:
    dataset.faults = {5: "bad", 7: "bug"}
    reader = make_reader(
        dataset,
        views=(View("pixels", (16, 16)), View("small", (8, 12), "bilinear")),
        repeats=2,
        decoder_masker=BrightHidden(),
    )
    batches = plan(24, 8, 6)
    inline = read_all(reader, batches, 0)
    assert_same(inline, read_all(reader, batches, 1, prefetch=1))
    if isinstance(dataset, Mixed):
        assert_same(inline, read_all(reader, batches, 2))
    assert {bad.file for batch in inline for bad in batch.bad} == {"fake-5", "fake-7"}
    assert inline[0].views[1].shape == (16, 3, 1, 8, 12)
    assert inline[0].hidden.shape == inline[0].decode.shape == (16, 16)


def test_bad_sample_keeps_its_rows() -> None:
    reader = make_reader(Fakes(faults={1: "bad"}), repeats=2)
    (batch,) = read_all(reader, [[Key(0, 0), Key(0, 1), Key(0, 2)]], 0)
    np.testing.assert_array_equal(batch.weight, [1, 1, 0, 0, 1, 1])
    assert batch.labels == (0, None, 2)
    assert not batch.views[0][2:4].any()
    assert batch.views[0][:2].any()
    assert (batch.hidden.sum(axis=1) == 8).all()
    assert batch.bad == (("fake-1", "is broken", 1),)


@pytest.mark.parametrize("workers", [0, 1])
def test_labels_of_every_kind_arrive_as_they_are(workers: int) -> None:
    keys = [[Key(0, index) for index in range(len(LABELS))]]
    (batch,) = read_all(make_reader(Labeled()), keys, workers)
    one, none, several, vector, boxes = batch.labels
    assert (one, none, several) == LABELS[:3]
    np.testing.assert_array_equal(vector, LABELS[3])
    assert isinstance(boxes, Boxes)
    np.testing.assert_array_equal(boxes.corners, LABELS[4].corners)
    assert (boxes.labels, boxes.frame) == (LABELS[4].labels, "m,0902")
    assert [len(each) for each in batch.boxes] == [0, 0, 0, 0, 1]


def test_mixed_depths_share_one_range() -> None:
    keys, shape = [[Key(0, 0), Key(0, 1)]], (1, 16, 16, 3)  # of the output's size: not resized
    (batch,) = read_all(make_reader(Mixed(shape=shape), held_out=True), keys, 0)
    (alone,) = read_all(make_reader(Fakes(shape=shape), held_out=True), keys, 0)
    assert batch.views[0].dtype == np.float32
    assert alone.views[0].dtype == np.uint8
    np.testing.assert_allclose(batch.views[0], alone.views[0] / 255, rtol=1e-6)


@pytest.mark.slow
def test_hanging_file_is_recorded_and_its_worker_replaced() -> None:
    reader = make_reader(Fakes(faults={3: "hang", 16: "spin"}))
    batches = [[Key(0, i) for i in range(s, s + 4)] for s in range(0, 24, 4)]
    result = read_all(reader, batches, 2, timeout=3.0)
    reason = "no answer within 3 s"
    bad = [bad for batch in result for bad in batch.bad]
    assert bad == [("fake-3", reason, 3), ("fake-16", reason, 16)]
    expected = read_all(make_reader(Fakes(faults={3: "bad", 16: "bad"})), batches, 0)
    for ours, theirs in zip(result, expected, strict=True):
        np.testing.assert_array_equal(ours.views[0], theirs.views[0])
        np.testing.assert_array_equal(ours.hidden, theirs.hidden)
        np.testing.assert_array_equal(ours.weight, theirs.weight)


def test_worker_that_dies_is_replaced_and_its_sample_tried_again(tmp_path: Path) -> None:
    dataset = Fakes(faults={2: "die once", 9: "die"}, trace=tmp_path / "died")
    batches = [[Key(0, i) for i in range(s, s + 6)] for s in range(0, 24, 6)]
    result = read_all(make_reader(dataset), batches, 2)
    assert [(b.file, b.index) for batch in result for b in batch.bad] == [("fake-9", 9)]
    assert "SIGKILL" in result[1].bad[0].reason
    clean = read_all(make_reader(Fakes(faults={9: "bad"})), batches, 0)
    for ours, theirs in zip(result, clean, strict=True):
        np.testing.assert_array_equal(ours.views[0], theirs.views[0])


def test_workers_killed_from_outside_cost_nothing_but_time() -> None:
    reader, batches = make_reader(Fakes()), plan(24, 4, 30)
    with Loader(reader, batches, workers=2, timeout=120) as loader:
        result = []
        for step, batch in enumerate(loader):
            result.append(batch)
            if step == 3:
                for worker in loader._pool._workers:
                    os.kill(worker.process.pid, signal.SIGKILL)
    assert_same(read_all(reader, batches, 0), result)


def test_broken_masker_ends_the_run() -> None:
    for workers in (0, 1):
        reader = make_reader(Fakes(), masker=Unsteady())
        with pytest.raises(PartError, match="must set 1 in every mask, set 2"):
            read_all(reader, plan(24, 4, 2), workers)


def test_workers_that_cannot_start_end_the_run_with_the_cause() -> None:
    with pytest.raises(RankError, match="no license for this dataset"):
        read_all(make_reader(Unborn()), [[Key(0, 0)]], 2)


def test_what_cannot_be_sent_is_said() -> None:
    dataset = Fakes()
    dataset.lock = lambda: None
    with pytest.raises(PartError, match=r"cannot be sent.*\n.*data.workers=0"):
        read_all(make_reader(dataset), [[Key(0, 0)]], 1)


def test_too_little_shared_memory_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = make_reader(Fakes())
    size = shared_memory.slot_bytes(reader.layout)

    monkeypatch.setattr(shared_memory, "free_memory", lambda: 5 * size)
    assert shared_memory.affordable(reader.layout, 100, 2) == 2
    with pytest.raises(StorageError, match=r"data\.workers"):
        shared_memory.affordable(reader.layout, 100, 4)


def test_batch_larger_than_all_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, batches = make_reader(Fakes()), plan(24, 24, 3)
    monkeypatch.setattr("maekit.data.loader.affordable", lambda *_: 2)
    assert_same(read_all(reader, batches, 0), read_all(reader, batches, 1))


def test_leaving_early_and_iterating_again() -> None:
    reader, batches = make_reader(Fakes()), plan(24, 4, 6)
    with Loader(reader, batches, workers=1, timeout=120) as loader:
        for step, _ in enumerate(loader):
            if step == 1:
                break
        assert_same(read_all(reader, batches, 0), list(loader))
        assert loader.wait_seconds > 0
        process = loader._pool._workers[0].process
        pid = process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_workers_import_no_torch_even_from_a_script_that_does(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('a worker imported torch')\n")
    script = tmp_path / "script.py"
    # No guard either: a worker that ran this file again would start workers of its own.
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path[:0] = [{str(ROOT / "tests" / "data")!r}]
        sys.modules["torch"] = sys
        from loader_fakes import Fakes, make_reader
        from maekit.data.loader import Loader
        from maekit.data.order import Key
        reader = make_reader(Fakes(faults={{0: "modules"}}))
        with Loader(reader, [[Key(0, 0), Key(0, 1)]], workers=1, timeout=120) as loader:
            for batch in loader:
                print(batch.bad[0].reason)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("none")


@pytest.mark.parametrize("fault", ["", "hang"])
def test_workers_go_when_the_parent_is_killed(fault: str) -> None:
    code = textwrap.dedent(f"""
        import itertools, sys, time
        sys.path[:0] = [{str(ROOT / "tests" / "data")!r}]
        from loader_fakes import Fakes, make_reader
        from maekit.data.loader import Loader
        from maekit.data.order import Key
        reader = make_reader(Fakes(faults={{3: {fault!r}}}))
        keys = ([Key(0, index)] for index in itertools.cycle(range(4)))
        loader = Loader(reader, keys, workers=1, timeout=300)
        batches = iter(loader)
        next(batches), next(batches)
        print(loader._pool._workers[0].process.pid, flush=True)
        time.sleep(300)
        """)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        pid = parent.stdout.readline()
        parent.kill()
    deadline = time.monotonic() + 120
    while running(int(pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(int(pid))


def test_shared_memory_has_no_name_that_could_be_left_behind_or_removed() -> None:
    before = set(Path("/dev/shm").glob("*"))
    reader, batches = make_reader(Fakes()), plan(24, 4, 6)
    with Loader(reader, batches, workers=1, timeout=120) as loader:
        next(iter(loader))
        assert set(Path("/dev/shm").glob("*")) <= before


def running(pid: int) -> bool:
    """Alive and no zombie: an orphan may find no one to reap it."""
    status = Path("/proc", str(pid), "stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_interrupt_reaches_only_the_main_process() -> None:
    reader, batches = make_reader(Fakes()), plan(24, 4, 12)
    with Loader(reader, batches, workers=2, timeout=120) as loader:
        result = []
        for batch in loader:
            result.append(batch)
            before = [worker.process.pid for worker in loader._pool._workers]
            for pid in before:
                os.kill(pid, signal.SIGINT)
        assert [worker.process.pid for worker in loader._pool._workers] == before
    assert_same(read_all(reader, batches, 0), result)


def test_hard_files_are_each_read_or_named(shared_data: Path) -> None:
    dataset = Images(Images.Options(path=str(shared_data / "odd" / "generated" / "images")))
    large = [i for i in range(len(dataset)) if "12000x12000" in dataset.name(i)]
    chosen = [Key(0, i) for i in range(len(dataset)) if i not in large]
    batches = [chosen[start : start + 8] for start in range(0, len(chosen), 8)]
    for channels in (1, 3):
        reader = make_reader(dataset, channels=channels)
        inline = read_all(reader, batches, 0)
        bad = {Path(b.file).name for batch in inline for b in batch.bad}
        assert {"empty.jpg", "truncated_half.jpg", "text_named.jpg", "bitflip_crc.png"} <= bad
        assert bad.isdisjoint({"1x4000.png", "one_pixel.png", "gray16.png", "cmyk.jpg"})
        assert len(bad) < 12
    assert_same(inline, read_all(reader, batches, 2))
