"""A sweep ends with the same table, whatever is killed, fails or stops on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_sweeps import alive, exit_code, forked, kill, pids, swept, wait_for

from maekit.ablate import sweep as sweep_module
from maekit.ablate.run import sweep_in
from maekit.errors import RecipeError, StorageError


def table(folder: Path) -> Any:
    return json.loads((folder / "table.json").read_text())


def starts(folder: Path) -> list[str]:
    return sorted(line for path in folder.glob("runs/*/*/*/starts") for line in
                  path.read_text().splitlines())  # fmt: skip


def test_rows_share_runs_that_are_the_same(fake: Path) -> None:
    done = swept(fake / "S")
    assert done.result["exit"] == 0
    begun = starts(fake / "S")
    # Per seed: two pre-trainings for three rows, since one differs in fine-tuning alone, whose
    # k-NN is shared, too.
    verbs = [line.split()[0] for line in begun]
    assert {verb: verbs.count(verb) for verb in verbs} == {"pretrain": 4, "probe": 6, "finetune": 8}
    rows = {row["row"]: row for row in table(fake / "S")["rows"]}
    shared = rows["half tuned"]["runs"]["1"]
    assert shared["pretrain"] == "runs/random-50/1/pretrain"
    assert shared["finetune"] == "runs/half-tuned/1/finetune"
    assert "seconds" not in rows["scratch"]["values"]
    assert all(line.count("--resume") == 1 and "--seed" in line for line in begun)


def test_a_failing_row_is_marked_and_the_others_go_on(
    fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAILS", "random-75/1/pretrain")
    done = swept(fake / "S", jobs=2)
    assert done.result["exit"] == 3
    rows = {row["row"]: row for row in table(fake / "S")["rows"]}
    assert rows["random 75"]["exit"] == 3
    assert "these are other weights\n  try: others" in rows["random 75"]["error"]
    assert [row["exit"] for row in rows.values()].count(0) == 3
    assert rows["random 75"]["finished"] == 3  # all of seed 0
    assert "random 75 (exit 3)" in (fake / "S" / "table.md").read_text()
    monkeypatch.delenv("FAKE_FAILS")
    again = swept(fake / "S", resume=True)
    assert again.result["exit"] == 0
    assert len(starts(fake / "S")) == 18, "what was finished is kept"


@pytest.mark.parametrize("killed", ["sweep", "row"])
def test_killed_and_resumed_gives_the_same_table(
    fake: Path, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    rows = {"only": ["random 75", "scratch"]}
    swept(fake / "whole", **rows)
    slow = "random-75/0/pretrain"
    # Of this one, which runs when it is killed; one whose sweep is killed goes on to its end.
    monkeypatch.setenv("FAKE_SECONDS", "300" if killed == "row" else "2")
    monkeypatch.setenv("FAKE_SLOW", slow)
    child = forked(lambda: swept(fake / "S", jobs=2, **rows))
    victim = fake / "S/runs" / slow / "pid"
    wait_for(lambda: victim.is_file() and victim.read_text() != "")
    kill(child if killed == "sweep" else int(victim.read_text()))
    code = exit_code(child)
    assert code == (-signal.SIGKILL if killed == "sweep" else 128 + signal.SIGKILL)
    monkeypatch.setenv("FAKE_SECONDS", "0")
    assert swept(fake / "S", resume=True, **rows).result["exit"] == 0
    for name in ("table.md", "table.csv", "table.json"):
        assert (fake / "S" / name).read_text() == (fake / "whole" / name).read_text()


def test_one_signal_saves_and_leaves_nothing_running(
    fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "30")
    child = forked(lambda: swept(fake / "S", jobs=3))
    wait_for(lambda: len(pids(fake / "S")) == 3)
    os.kill(child, signal.SIGINT)
    assert exit_code(child) == 75
    assert not any(alive(pid) for pid in pids(fake / "S"))
    results = [json.loads(path.read_text()) for path in fake.glob("S/runs/*/*/*/result.json")]
    assert [each["exit"] for each in results] == [75, 75, 75], "each was asked once, and saved"
    assert json.loads((fake / "S" / "result.json").read_text())["exit"] == 75
    assert "random 50: 0 of 6 runs are done." in (fake / "S" / "table.md").read_text()


@pytest.mark.parametrize(("set_to", "expected"), [(None, 4), ("3", 3), ("4,2", 4)])
def test_jobs_share_the_cores(
    fake: Path, monkeypatch: pytest.MonkeyPatch, set_to: str | None, expected: int
) -> None:
    monkeypatch.setattr(sweep_module, "cores", lambda: 9)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if set_to is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", set_to)
    swept(fake / "S", jobs=2, only=["random 50"])
    assert table(fake / "S")["rows"][0]["machines"] == [f"cpu, {expected} thread(s)"]


def test_another_recipe_is_refused_and_other_seeds_are_not(fake: Path) -> None:
    only = ["random 50"]
    swept(fake / "S", only=only)
    before = (fake / "S" / "result.json").read_text()
    changed = {"ablate": {"rows": {"random 75": {"set": {"pretrain.masker.ratio": 0.7}}}}}
    with pytest.raises(RecipeError, match=r"ablate.rows.random 75.set.pretrain.masker.ratio.*0.75"):
        swept(fake / "S", changed, resume=True, only=only)
    with pytest.raises(RecipeError, match=r"pretrain\.steps: 3 before, 4 now"):
        swept(fake / "S", {"pretrain": {"steps": 4}}, resume=True, only=only)
    assert (fake / "S" / "result.json").read_text() == before
    more = swept(fake / "S", resume=True, only=only, seeds=[0, 1, 2])
    assert more.result["done"] == 9
    assert list(more.result["rows"][0]["values"]["knn"]["seeds"]) == ["0", "1", "2"]


def test_a_row_that_was_extended_is_not_the_sweeps(fake: Path) -> None:
    only = ["random 50", "random 75"]
    swept(fake / "S", only=only)
    before = (fake / "S" / "table.json").read_text()
    row = fake / "S/runs/random-50/0/pretrain"
    (row / "extended.json").write_text('[{"at": 3, "how": "planned", "steps": 3, "warmup": 0}]')
    with pytest.raises(RecipeError, match="was extended") as refused:
        swept(fake / "S", resume=True, only=only)
    assert refused.value.where == str(row)
    assert (fake / "S" / "table.json").read_text() == before
    row.rename(fake / "aside")  # as the hint says
    assert swept(fake / "S", resume=True, only=only).result["exit"] == 0
    assert (row / "result.json").is_file()


def test_two_sweeps_never_share_a_folder(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "30")
    child = forked(lambda: swept(fake / "S"))
    wait_for(lambda: bool(pids(fake / "S")))
    with pytest.raises(StorageError, match="in use"):
        swept(fake / "S", resume=True)
    os.kill(child, signal.SIGTERM)
    assert exit_code(child) == 75


@pytest.mark.skipif(sys.platform != "linux", reason="death signals are Linux's")
def test_a_run_dies_with_its_sweep() -> None:
    """On Linux the system sends the signal that lets a run save."""
    body = (
        "import signal, sys, time; from maekit.ranks import follow_parent\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); follow_parent('MAEKIT_SWEEP')\n"
        "print('up', flush=True); time.sleep(60); print('lived on', flush=True)"
    )
    outer = (
        "import os, subprocess, sys;"
        "environment = {**os.environ, 'MAEKIT_SWEEP': str(os.getpid())};"
        "subprocess.run([sys.executable, '-c', sys.argv[1]], env=environment)"
    )
    sweep = subprocess.Popen([sys.executable, "-c", outer, body], stdout=subprocess.PIPE)
    assert sweep.stdout is not None
    assert sweep.stdout.readline() == b"up\n"
    sweep.kill()
    assert sweep.stdout.read() == b"", "its end of the pipe is closed: the run has gone"
    sweep.wait()


@pytest.mark.parametrize(
    ("row", "told"),
    [({"chain": []}, "chain"), ({"from": "scratch"}, "nothing to run and to measure")],
)
def test_rows_that_do_nothing_are_refused(fake: Path, row: dict[str, Any], told: str) -> None:
    """As one would be that judges whatever was trained last, or one that is an empty line."""
    changed = {"ablate": {"measure": ["seconds"], "rows": {"none": row}}}
    with pytest.raises(RecipeError, match=told):
        swept(fake / "S", changed)


def test_damaged_records_of_a_sweep_are_left_out(fake: Path) -> None:
    swept(fake / "S", only=["random 50"])
    path = fake / "S" / "result.json"
    result = json.loads(path.read_text())
    whole = [row["row"] for row in result["rows"]]
    path.write_text(json.dumps(result | {"rows": [*result["rows"], 3, {"row": "gone"}, {}]}))
    plan = sweep_in(fake / "S")
    assert plan is not None
    assert [row.name for row in plan.rows] == whole
