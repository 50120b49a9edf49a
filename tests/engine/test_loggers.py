"""Numbers and pictures reach every logger under the same names, and none can end a run."""

from __future__ import annotations

import csv
import errno
import json
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from small_recipes import IMAGES, write_recipe

from maekit.engine.events import Emit, Ended, Event, Measured, Note, Saved, StepDone, Throughput
from maekit.engine.loggers import About, named_values, open_loggers, require_loggers
from maekit.errors import RecipeError
from maekit.recipe.load import load

if TYPE_CHECKING:
    from maekit.recipe.schema import Recipe

PACE = Throughput(9, 120.0, 0.25, 1e9, 2.0)
PICTURE = Image.new("RGB", (4, 6), (9, 99, 199))
EVENTS = (
    StepDone(1, 0.5, 2.0, 1e-3, 0.7),
    StepDone(2, 1.0, 1.5, 1e-3, 0.6, None, PACE),
    Measured(2, "holdout", {"loss": 1.25, "psnr": None}),
    Saved(2, "picture", "step.png", PICTURE),
    Ended({"exit": 0, "steps": 2, "loss_last": 1.5, "per_class": {"a: b": 1.0}, "weights": "w"}),
)
NAMES = {
    "train/loss", "train/lr", "train/grad_norm", "train/epoch", "holdout/loss",
    "pace/samples_per_second", "pace/data_wait",
}  # fmt: skip


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[[object], Recipe]:
    def make(log: object) -> Recipe:
        over = {} if log is None else {"log": log}
        return load(write_recipe(tmp_path / "own.yaml", IMAGES, over)).recipe

    return make


def about(
    folder: Path, say: Emit, log: object = None, *, step: int = 0, base: Recipe | None = None
) -> About:
    folder.mkdir(exist_ok=True)
    if base is None:
        over = {} if log is None else {"log": log}
        base = load(write_recipe(folder / "own.yaml", IMAGES, over)).recipe
    return About(folder, step, "pretrain", base, say)


def told(log: str, folder: Path, *, step: int = 0, events: tuple[Event, ...] = EVENTS) -> list[str]:
    """Pass events on to a logger; return what it says."""
    said: list[Event] = []
    (logger,) = open_loggers(about(folder, said.append, log, step=step))
    for event in events:
        logger(event)
    logger.close()
    return [event.text for event in said if isinstance(event, Note)]


class FakeWandB(ModuleType):
    """W&B as far as it is used; raises where ``fails`` says.

    ``before`` is what it had of a run that goes on: its own count of what is logged began behind.
    """

    def __init__(self, fails: str = "", before: FakeWandB | None = None) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.fails, self.calls = fails, []
        self.logged: dict[Any, Any] = {}
        self.last = {} if before is None else before.last
        self.resumed = before is not None
        self.axes: dict[str, str | None] = {}
        self.summary = SimpleNamespace(update=self.updated, get=self.last.get)
        self.began: dict[str, Any] = {}
        self.offline, self.url, self.project, self.dir = False, "https://w/1", "maekit", "wandb/x"

    def may_fail(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fails:
            raise ConnectionError(f"no {name}")

    def login(self, **_: object) -> bool:
        self.may_fail("login")
        return False

    def Settings(self, **given: object) -> object:  # noqa: N802
        return given

    def Image(self, image: Image.Image) -> object:  # noqa: N802
        return image.size

    def init(self, **given: Any) -> FakeWandB:
        self.may_fail("init")
        self.began = given
        return self

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.axes[name] = step_metric

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        self.may_fail("log")
        assert step is None  # of steps that it counts itself, a resumed run drops some
        assert self.axes == {"step": None, "*": "step"}
        self.last |= values
        new = {key: value for key, value in values.items() if key != "step"}
        known = self.logged.setdefault(values["step"], {})
        assert not known.keys() & new.keys()
        known.update(new)

    def updated(self, values: dict[str, float]) -> None:
        self.may_fail("summary")
        self.logged["summary"] = values

    def finish(self, exit_code: int) -> None:
        self.may_fail("finish")
        self.logged["code"] = exit_code


class FakeMLflow(ModuleType):
    """MLflow likewise: a client that keeps what it is given."""

    def __init__(self, fails: str = "") -> None:
        super().__init__("mlflow")
        self.__spec__ = ModuleSpec("mlflow", None)
        self.entities = ModuleType("mlflow.entities")
        self.entities.Metric = lambda key, value, when, step: SimpleNamespace(  # type: ignore[attr-defined]
            key=key, value=value, step=step
        )
        self.entities.Param = lambda key, value: SimpleNamespace(key=key, value=value)  # type: ignore[attr-defined]
        self.fails, self.calls = fails, []
        self.metrics: list[tuple[str, int, float]] = []
        self.params: dict[str, str] = {}
        self.images: list[tuple[str, int]] = []
        self.status: list[str] = []

    def __getattr__(self, name: str) -> Any:
        calls = ("create_run", "log_batch", "log_image", "set_terminated", "update_run")
        if name not in calls:
            raise AttributeError(name)

        def call(*given: Any, **named: Any) -> Any:
            self.calls.append(name)
            if name == self.fails:
                raise ConnectionError(f"no {name}")
            return getattr(self, f"_{name}")(*given, **named)

        return call

    def get_tracking_uri(self) -> str:
        return "sqlite:///x"

    def MlflowClient(self, **_: object) -> FakeMLflow:  # noqa: N802
        return self

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        return name

    def _create_run(self, experiment: str, **_: object) -> Any:
        return SimpleNamespace(info=SimpleNamespace(run_id=f"{experiment}-1"))

    def _update_run(self, run: str, status: str) -> None:
        self.status.append(status)

    def _log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
        assert run == "small-1"
        assert len(params) <= 100
        self.metrics += [(each.key, each.step, each.value) for each in metrics]
        self.params |= {each.key: each.value for each in params}

    def _log_image(self, run: str, image: Image.Image, key: str, step: int) -> None:
        self.images.append((key, step))

    def _set_terminated(self, run: str, status: str) -> None:
        self.status.append(status)

    def get_metric_history(self, run: str, key: str) -> Any:
        return [SimpleNamespace(step=step) for name, step, _ in self.metrics if name == key]


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeWandB]:
    def install(fails: str = "", before: FakeWandB | None = None) -> FakeWandB:
        fake = FakeWandB(fails, before)
        monkeypatch.setitem(sys.modules, "wandb", fake)
        return fake

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return install


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeMLflow]:
    def install(fails: str = "") -> FakeMLflow:
        fake = FakeMLflow(fails)
        monkeypatch.setitem(sys.modules, "mlflow", fake)
        monkeypatch.setitem(sys.modules, "mlflow.entities", fake.entities)
        return fake

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return install


def test_names_of_a_step_and_of_a_measurement() -> None:
    step, measured = EVENTS[1], EVENTS[2]
    assert isinstance(step, StepDone)
    assert isinstance(measured, Measured)
    assert named_values(step) | named_values(measured) == {
        "train/loss": 1.5, "train/lr": 1e-3, "train/grad_norm": 0.6, "train/epoch": 1.0,
        "pace/samples_per_second": 120.0, "pace/data_wait": 0.25, "holdout/loss": 1.25,
    }  # fmt: skip


def test_every_logger_has_the_same_names(
    tmp_path: Path, wandb: Callable[..., FakeWandB], mlflow: Callable[..., FakeMLflow]
) -> None:
    one, other = wandb(), mlflow()
    assert not any("not written" in each for log in ("wandb", "mlflow", "csv")
                   for each in told(log, tmp_path / log))  # fmt: skip
    assert one.logged[2].keys() == NAMES | {"reconstructions"}
    assert one.logged[1] == {
        "train/loss": 2.0, "train/lr": 1e-3, "train/grad_norm": 0.7, "train/epoch": 0.5,
    }  # fmt: skip
    assert one.logged["code"] == 0
    results = {"result/exit": 0, "result/steps": 2, "result/loss_last": 1.5}
    assert one.logged["summary"] == results
    assert one.began["config"]["model"]["backbone"]["width"] == 32
    named = {key for key, _, _ in other.metrics}
    assert named == NAMES | results.keys()
    assert ("holdout/loss", 2, 1.25) in other.metrics
    assert other.images == [("reconstructions", 2)]
    assert other.params["model.backbone.width"] == "32"
    assert other.status == ["FINISHED"]
    with (tmp_path / "csv" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0].keys() == NAMES | {"step"}
    assert [row["train/loss"] for row in rows] == ["2", "1.5"]
    assert [row["holdout/loss"] for row in rows] == ["", "1.25"]


def test_tensorboard_has_them_too(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert told("tensorboard", tmp_path) == []
    board = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(board.Tags()["scalars"]) == NAMES
    assert board.Tags()["images"] == ["reconstructions"]


@pytest.mark.parametrize("call", ["login", "init", "log", "summary", "finish"])
def test_wandb_that_fails_is_said_once(
    call: str, tmp_path: Path, wandb: Callable[..., FakeWandB]
) -> None:
    fake = wandb(call)
    (text,) = (each for each in told("wandb", tmp_path) if "not written" in each)
    assert text == f"W&B is not written any more: ConnectionError: no {call}"
    assert fake.calls.count(call) == 1


@pytest.mark.parametrize("call", ["create_run", "log_batch", "log_image", "set_terminated"])
def test_mlflow_that_fails_is_said_once(
    call: str, tmp_path: Path, mlflow: Callable[..., FakeMLflow]
) -> None:
    fake = mlflow(call)
    assert told("mlflow", tmp_path) == [
        f"MLflow is not written any more: ConnectionError: no {call}"
    ]
    assert fake.calls.count(call) == 1


@pytest.mark.parametrize(
    "call", ["get_experiment_by_name", "_create_run", "_log_batch", "_log_image", "_update_run"]
)
@pytest.mark.parametrize("code", [0, 75])
def test_a_store_that_never_answers_is_not_waited_for(
    code: int,
    call: str,
    tmp_path: Path,
    mlflow: Callable[..., FakeMLflow],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake, answers, asked = mlflow(), threading.Event(), threading.Event()
    waits: list[str] = []
    if call == "_update_run":  # the first request of a resumed run
        told("mlflow", tmp_path, events=EVENTS[:1])

    def wait(*_: object, **__: object) -> None:
        waits.append(threading.current_thread().name)
        asked.set()
        answers.wait(5)

    # Whoever is asked to stop waits for less.
    monkeypatch.setattr("maekit.engine.loggers._PATIENCE", 0.05 if code == 0 else 60)
    monkeypatch.setattr("maekit.engine.loggers._HURRY", 0.05)
    monkeypatch.setattr(fake, call, wait, raising=False)
    (text,) = told("mlflow", tmp_path, events=(*EVENTS[:4], Ended({"exit": code, "steps": 2})))
    assert "did not take all within" in text
    assert asked.wait(60)  # on a busy machine its thread comes to it later than the patience
    answers.set()
    assert waits == ["maekit-mlflow"]


def test_a_resumed_run_goes_on_with_its_own(
    tmp_path: Path, wandb: Callable[..., FakeWandB], mlflow: Callable[..., FakeMLflow]
) -> None:
    first, store = wandb(), mlflow()
    told("wandb", tmp_path)
    told("mlflow", tmp_path, events=(*EVENTS[:4], Ended({"exit": 75, "steps": 2})))
    second = wandb(before=first)
    later = (StepDone(3, 1.5, 1.25, 1e-3, 0.5), Saved(3, "picture", "step.png", PICTURE))
    again = (*EVENTS[1:4], *later, Ended({"exit": 0, "steps": 3}))
    told("wandb", tmp_path, step=1, events=again)
    told("mlflow", tmp_path, step=1, events=again)
    assert second.began["id"] == first.began["id"]
    assert second.began["resume"] == "allow"
    assert second.logged.pop("summary")
    assert second.logged.pop("code") == 0
    assert second.logged.keys() == {3}  # the second step was made twice
    assert second.logged[3].keys() > {"train/loss", "reconstructions"}
    assert store.calls.count("create_run") == 1
    assert store.status == ["KILLED", "RUNNING", "FINISHED"]
    losses = [(step, value) for key, step, value in store.metrics if key == "train/loss"]
    assert losses == [(1, 2.0), (2, 1.5), (3, 1.25)]  # the second was made twice
    assert store.images == [("reconstructions", 2), ("reconstructions", 3)]


def test_wandb_keeps_what_comes_at_the_step_of_an_interruption(
    tmp_path: Path, wandb: Callable[..., FakeWandB]
) -> None:
    """A signal saves before what is measured at that step; the resumed run measures it."""
    first = wandb()
    told("wandb", tmp_path, events=(*EVENTS[:2], Ended({"exit": 75, "steps": 2})))
    assert first.logged["code"] == 75
    second = wandb(before=first)
    told("wandb", tmp_path, step=2, events=EVENTS[2:])
    assert second.logged[2].keys() == {"holdout/loss", "reconstructions"}
    third = wandb(before=second)  # killed, and resumed before it
    told("wandb", tmp_path, step=1, events=(*EVENTS[1:4], Measured(3, "holdout", {"loss": 1.0})))
    assert third.logged == {3: {"holdout/loss": 1.0}, "code": 1}


def test_wandb_that_does_not_answer_holds_up_no_interruption(
    tmp_path: Path, wandb: Callable[..., FakeWandB], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, answers = wandb(), threading.Event()
    hooks: list[bool] = []
    monkeypatch.setattr("maekit.engine.loggers._HURRY", 0.05)
    monkeypatch.setattr("maekit.engine.loggers.leave_hooks_out", lambda: hooks.append(False))
    monkeypatch.setattr(fake, "finish", lambda exit_code: answers.wait(60))
    said = told("wandb", tmp_path, events=(*EVENTS[:4], Ended({"exit": 75, "steps": 2})))
    answers.set()
    assert sum("it did not take all within" in each for each in said) == 1
    assert hooks == [False]
    fails = wandb("finish")  # another error of that thread
    said = told("wandb", tmp_path / "x", events=(EVENTS[0], Ended({"exit": 75, "steps": 2})))
    assert sum("ConnectionError: no finish" in each for each in said) == 1
    assert fails.calls.count("finish") == 1


def test_a_table_drops_what_is_made_again(tmp_path: Path) -> None:
    told("csv", tmp_path)
    table = tmp_path / "metrics.csv"
    whole = table.read_text()
    told("csv", tmp_path, step=1, events=EVENTS[1:])
    assert table.read_text() == whole
    told("csv", tmp_path, step=2, events=(Measured(2, "probe", {"top1": 0.5}),))
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (rows[1]["train/loss"], rows[1]["probe/top1"]) == ("1.5", "0.5")
    assert rows[0]["probe/top1"] == ""


@pytest.mark.parametrize("killed", [1, 2, 3, 4])
def test_a_table_keeps_the_row_of_a_checkpoint_when_killed(killed: int, tmp_path: Path) -> None:
    """What was said before a SIGKILL is in the file, and stays there after a resume."""
    events = (*EVENTS[:3], Measured(2, "test", {"top1": 0.5}), StepDone(3, 1.5, 1.25, 1e-3, 0.5))
    table = tmp_path / "metrics.csv"
    told("csv", tmp_path, events=events)
    whole = table.read_text()
    table.unlink()
    (logger,) = open_loggers(about(tmp_path, print, "csv"))
    for event in events[:killed]:
        logger(event)
    step = 1 if killed == 1 else 2  # of the checkpoint; nothing is closed
    (resumed,) = open_loggers(about(tmp_path, print, "csv", step=step))
    for event in events[killed:]:
        resumed(event)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert table.read_text() == whole  # though the last one is not closed, too
    logger.close()
    resumed.close()


def test_a_damaged_table_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(b"\x00\x01nonsense\n1,2,3\n")
    told("csv", tmp_path)
    assert (tmp_path / "metrics.csv").read_text().startswith("step,train/loss")


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_is_said_before_the_run(
    name: str, recipe: Callable[[object], Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maekit.engine.loggers.find_spec", lambda _: None)
    with pytest.raises(RecipeError, match=name) as refused:
        require_loggers(recipe(["csv", name]))
    assert refused.value.hint == f"pip install 'maekit[{name}]'"
    require_loggers(recipe(None))
    require_loggers(recipe([]))


def test_a_logger_is_named_once(recipe: Callable[[object], Recipe]) -> None:
    with pytest.raises(RecipeError, match="named twice"):
        recipe(["csv", "csv"])


@pytest.mark.parametrize(("log", "number"), [(None, 1), ([], 0), ("csv", 1)])
def test_the_default_is_tensorboard_where_it_is(
    log: object, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maekit.engine.loggers._LOGGERS", dict.fromkeys(
        ("tensorboard", "csv"), (lambda _: SimpleNamespace(close=lambda: None), None)
    ))  # fmt: skip
    monkeypatch.setattr("maekit.engine.loggers.find_spec", lambda _: object())
    assert len(open_loggers(about(tmp_path, print, log))) == number
    monkeypatch.setattr("maekit.engine.loggers.find_spec", lambda _: None)
    assert len(open_loggers(about(tmp_path, print, log))) == (0 if log is None else number)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOSPC])
def test_tensorboard_that_fails_is_said_once_and_prints_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_writer = pytest.importorskip("tensorboard.summary.writer.record_writer")
    printed: list[object] = []
    hook = printed.append
    monkeypatch.setattr(threading, "excepthook", hook)

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    said: list[Event] = []
    (board,) = open_loggers(about(tmp_path, said.append))
    monkeypatch.setattr(record_writer.RecordWriter, "write", fail)
    for step in range(3):
        board(Measured(step, "holdout", {"loss": 1.0}))
    board.close()
    (note,) = said
    assert isinstance(note, Note)
    assert os.strerror(number) in note.text
    assert not printed
    assert threading.excepthook == hook
    other = threading.Thread(target=fail)  # of anyone else
    (whole,) = open_loggers(about(tmp_path / "whole", said.append))
    other.start()
    other.join()
    assert len(printed) == 1
    whole.close()
    assert threading.excepthook == hook


@pytest.mark.slow  # W&B starts a process of its own
def test_wandb_itself_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2 as proto

    monkeypatch.setenv("WANDB_MODE", "offline")
    (first,) = told("wandb", tmp_path)
    assert "wandb sync" in first
    again = (StepDone(3, 1.5, 1.25, 1e-3, 0.5), Ended({"exit": 0, "steps": 3}))
    told("wandb", tmp_path, step=2, events=again)
    name = json.loads((tmp_path / "loggers.json").read_text())["wandb"]["id"]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # its own process writes them
        files = sorted(tmp_path.glob(f"wandb/offline-run-*-{name}*/run-{name}.wandb"))
        records = [
            proto.Record.FromString(message)
            for file in files
            for message in messages(file.read_bytes())
        ]
        kinds = [record.WhichOneof("record_type") for record in records]
        if kinds.count("exit") == 2:
            break
        time.sleep(0.05)
    rows: dict[int, dict[str, Any]] = {}
    for record in records:
        items = record.history.item
        if items:
            values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
            rows.setdefault(int(values["_step"]), {}).update(values)
    assert rows[1]["train/loss"] == 2.0
    assert rows[2].keys() >= NAMES | {"reconstructions"}
    assert rows[3]["train/loss"] == 1.25
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/reconstructions*.png"))


def messages(data: bytes) -> Iterator[bytes]:
    """Yield the records of W&B's file: LevelDB's log format after a head of 7 bytes."""
    place, parts = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        size, kind = struct.unpack_from("<HB", data, place + 4)
        parts += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last of several
            yield parts
            parts = b""


@pytest.mark.slow  # importing MLflow takes seconds
def test_mlflow_itself_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert told("mlflow", tmp_path, events=(*EVENTS[:4], Ended({"exit": 75, "steps": 2}))) == []
    again = (*EVENTS[1:4], StepDone(3, 1.5, 1.25, 1e-3, 0.5), Ended({"exit": 0, "steps": 3}))
    assert told("mlflow", tmp_path, step=1, events=again) == []
    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'small'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics.keys() >= NAMES
    assert run.data.params["model.backbone.width"] == "32"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(each.step, each.value) for each in history] == [(1, 2.0), (2, 1.5), (3, 1.25)]
    images = list((tmp_path / "store").rglob("images/reconstructions*.png"))
    assert len(images) == 1
