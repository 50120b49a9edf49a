"""What a report makes of a run folder, whatever state it is in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from report_runs import (
    holdout_record,
    make_run,
    step_record,
    write_metrics,
    write_result,
)

from maekit.errors import RecipeError
from maekit.visualize.report.numbers import held_out, numbers_of
from maekit.visualize.report.run import names_of, read_run

_HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Another process that holds a lock."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", _HOLD, str(lock)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.communicate("")


def test_a_finished_run(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    assert run.verdict.state == "finished"
    assert run.verdict.text == "Finished, step 40 of 40"
    assert run.when == "Logged from 2026-01-02 03:04:05 to 2026-01-02 03:05:05, local time."
    numbers = numbers_of(run)
    error = 0.01 + 0.05 / 41
    assert numbers.hidden_mse == error
    assert numbers.best_fill == "interpolated visible mean"
    assert 10 ** (numbers.gain_db / 10) == pytest.approx(0.02 / error)
    assert numbers.loss_first == pytest.approx(sum(0.4 + 1 / step for step in range(1, 5)) / 4)
    assert (numbers.bad_files, numbers.seconds, numbers.data_wait) == (1, 65.0, 0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="locks with fcntl")
def test_a_run_whose_lock_is_held_is_running_whatever_its_result_says(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    write_result(folder, exit=75, steps=20)  # interrupted before, and resumed since
    with held(folder / "lock"):
        run = read_run(folder)
    assert run.verdict.state == "running"
    assert run.verdict.detail == "0 s left when it last logged."
    assert (folder / "lock").read_text() == "host pid 1\n"
    assert read_run(folder).verdict.state == "killed"


@pytest.mark.parametrize(
    ("result", "state", "words"),
    [
        ({"exit": 75, "steps": 40}, "interrupted", "Interrupted, step 40 of 40"),
        ({"exit": 130, "steps": 40}, "interrupted", "Interrupted, step 40"),
        ({"exit": 4, "steps": 40, "error": "lost"}, "crashed", "exit code 4 (non-finite loss)"),
        ({"exit": 1, "error": "oh"}, "killed", "Ended without a result"),  # of before a resume
        ({"exit": 75, "steps": 30}, "killed", "Ended without a result, step 40 of 40"),
    ],
)
def test_runs_that_did_not_finish(tmp_path: Path, result: dict, state: str, words: str) -> None:
    folder = make_run(tmp_path / "run")
    write_result(folder, **result)
    verdict = read_run(folder).verdict
    assert verdict.state == state
    assert words in verdict.text
    if state == "crashed":
        assert verdict.detail == "lost"


def test_a_killed_run_has_half_a_last_line_and_no_result(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "result.json").unlink()
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 41, "lo')
    with (folder / "bad_files.jsonl").open("ab") as file:
        file.write('{"file": "ü'.encode()[:-1])  # within a character
    run = read_run(folder)
    assert run.verdict.state == "killed"
    assert (run.step, len(run.bad_files)) == (40, 1)


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "log.txt").touch()
    run = read_run(tmp_path)
    assert run.verdict.state == "empty"
    assert numbers_of(run).loss_last is None


def test_damaged_files_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "recipe.yaml").write_text("name: [")
    (folder / "env.json").write_text("{")
    run = read_run(folder)
    assert run.recipe is None
    assert run.recipe_text == "name: ["
    assert [note.partition(":")[0] for note in run.notes] == [
        "recipe.yaml", "env.json is damaged and left out",
    ]  # fmt: skip
    assert run.step == 40


@pytest.mark.parametrize("text", ["[]", "null", "7", '{"exit": 0', ""])
def test_a_result_that_is_no_result_is_none(tmp_path: Path, text: str) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "result.json").write_text(text)
    assert read_run(folder).verdict.state == "killed"


def test_a_tokenizer_is_told_by_what_its_codes_keep(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    write_result(folder, exit=0, steps=40, verb="tokenizer")
    kept = {"psnr": 18.75, "mean_color_psnr": 17.5, "codes_used": 52.0}
    write_metrics(folder, [step_record(40, 40), {"step": 40, "holdout": kept}])
    numbers = numbers_of(read_run(folder))
    assert (numbers.hidden_mse, numbers.psnr, numbers.gain_db) == (None, 18.75, 1.25)
    assert held_out(numbers) == "18.75 dB PSNR"


def test_a_classifier_is_told_by_what_it_gets_right(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    values = [{"top1": 0.25, "top5": 1.0}, {"top1": 0.375, "top5": 1.0}]
    measured = [{"step": 20 * n, "test": each} for n, each in enumerate(values, start=1)]
    write_metrics(folder, [step_record(40, 40), *measured])
    assert held_out(numbers_of(read_run(folder))) == "0.3750 top-1"
    write_result(folder, exit=0, steps=40, verb="finetune", top1=1.0)  # of all views
    assert held_out(numbers_of(read_run(folder))) == "1.0000 top-1"
    write_result(folder, exit=0, steps=40, verb="finetune", r2=-0.5)
    assert held_out(numbers_of(read_run(folder))) == "-0.5000 R²"


def test_lost_losses_do_not_count(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    lost = {"step": 30, "holdout": dict.fromkeys(("loss", "hidden_mse", "mean_fill_mse"))}
    write_metrics(
        folder, [holdout_record(0, 0.5), *(step_record(k, 9, loss=None) for k in range(1, 9)), lost]
    )
    numbers = numbers_of(read_run(folder))
    assert numbers.loss_last is None
    assert numbers.hidden_mse is None
    assert numbers.gain_db is None


def test_what_is_no_run_is_refused_with_what_to_try(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "mine" / "1")
    with pytest.raises(RecipeError, match="no such folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(RecipeError, match="not a folder"):
        read_run(tmp_path / "runs" / "mine" / "1" / "log.txt")
    with pytest.raises(RecipeError, match="not a run") as caught:
        read_run(tmp_path / "runs")
    assert caught.value.hint == f"name a run: {tmp_path / 'runs' / 'mine' / '1'}"


def test_names_are_as_long_as_it_takes_to_tell_runs_apart() -> None:
    assert names_of([Path("/a/b/c"), Path("/a/b/d")]) == ["b/c", "b/d"]
    assert names_of([Path("/x/b/c"), Path("/y/b/c")]) == ["x/b/c", "y/b/c"]
    assert names_of([Path("/b/c"), Path("/a/b/c")]) == ["/b/c", "a/b/c"]
    assert names_of([Path("/a/b/c")] * 2) == ["b/c"] * 2  # the same run twice


def test_a_line_that_is_no_record_is_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "metrics.jsonl").write_text('7\n"x"\n[]\n' + json.dumps(step_record(5, 9)) + "\n{}\n")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": null, "loss": 1}\n{"step": "6", "loss": 1}\n')
    assert [record["step"] for record in read_run(folder).steps] == [5]
