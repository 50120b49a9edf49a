"""Pass the numbers and pictures of a run on to what people read them with: the recipe's ``log``.

Every logger gets the same names: ``train/loss``, ``pace/samples_per_second``, ``holdout/...``. None
may end a run: each is wrapped in a ``Dispensable``.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import queue
import re
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from maekit.atomic import write_bytes, write_text
from maekit.engine.events import Emit, Ended, Event, Measured, Note, Saved, StepDone
from maekit.engine.reporters import Dispensable, Reporter
from maekit.errors import INTERRUPTED, RecipeError
from maekit.recipe.dump import as_dict
from maekit.runs import read_json
from maekit.stop import leave_hooks_out
from maekit.text import as_text

if TYPE_CHECKING:
    from PIL.Image import Image

    from maekit.recipe.schema import Recipe

KEPT = "loggers.json"  # in a run's folder: which runs of W&B and MLflow it is
TABLE = "metrics.csv"
PROJECT = "maekit"  # of W&B, where WANDB_PROJECT names no other
_LONGEST_VALUE = 500  # characters of a parameter in MLflow's older databases
_AT_ONCE = 100  # parameters in a request, and what MLflow's servers take at most
_MOST_METRICS = 1000  # the same, of metrics
_LAST = "last "  # before a name in loggers.json: the last step of which the store has it
_EACH_STEP = ("train/", "pace/")  # names that come with every step; others now and then
_STEP = "step"  # of ours, in W&B: its own counts what is logged, and never goes back
_ODD = re.compile(r"[^\w\-./ ]", re.ASCII)  # what MLflow refuses in a metric's name
_PATIENCE = 60.0  # seconds that the end of a run waits for a server
_HURRY = 10.0  # the same, where a signal ended it: schedulers kill after half a minute
_KEEPING = threading.Lock()  # of loggers.json, into which MLflow's thread writes too


@dataclass(frozen=True)
class About:
    """What a logger is told of its run.

    Attributes:
        folder: of the run.
        step: finished updates when it was opened.
        verb: the command.
        recipe: resolved.
        say: called with what a user should know.
    """

    folder: Path
    step: int
    verb: str
    recipe: Recipe
    say: Emit

    @property
    def title(self) -> str:
        """Name of the run for people."""
        return f"{self.recipe.name}/{as_text(self.folder.name)}"

    def kept(self, logger: str) -> dict[str, str]:
        """Return what an earlier start of this run remembers of a logger."""
        found = read_json(self.folder / KEPT).get(logger)
        return found if isinstance(found, dict) else {}

    def keep(self, logger: str, values: Mapping[str, str]) -> None:
        """Remember it for the next one."""
        path = self.folder / KEPT
        with _KEEPING:
            known = read_json(path) | {logger: dict(values)}
            write_text(path, json.dumps(known, indent=1) + "\n")


class Logger(ABC):
    """Base of all: an event becomes numbers or a picture."""

    def __call__(self, event: Event) -> None:
        """Pass an event on."""
        match event:
            case StepDone() | Measured():
                self.numbers(event.step, named_values(event))
            case Saved(image=image) if image is not None:
                self.picture(event.step, event.name, image)
            case Ended():
                self.ended(event.result)
            case _:
                pass

    @abstractmethod
    def numbers(self, step: int, values: dict[str, float]) -> None:
        """Take numbers of a step, by their names; several calls may be of one step."""

    def picture(self, step: int, name: str, image: Image) -> None:  # noqa: B027 - a table has none
        """Take a picture."""

    def ended(self, result: Mapping[str, Any]) -> None:  # noqa: B027 - most need not know
        """Take what result.json holds."""

    @abstractmethod
    def close(self) -> None:
        """Finish what is written."""


def named_values(event: StepDone | Measured) -> dict[str, float]:
    """Return an event's numbers under the names that all loggers use."""
    if isinstance(event, Measured):
        known = ((key, value) for key, value in event.values.items() if value is not None)
        return {f"{event.name}/{key}": value for key, value in known}
    values = {f"train/{key}": getattr(event, key) for key in ("loss", "lr", "grad_norm", "epoch")}
    pace = event.throughput
    if pace is not None:
        values |= {
            "pace/samples_per_second": pace.samples_per_second,
            "pace/data_wait": pace.data_wait,
        }
    return values


def require_loggers(recipe: Recipe) -> None:
    """Refuse a logger whose package is missing, before a run begins.

    Raises:
        RecipeError: says how to install it.
    """
    for name in recipe.log or ():
        if name in _PACKAGES and find_spec(name) is None:
            msg = f"'{name}' needs the package {name}"
            raise RecipeError(msg, where="log", hint=f"pip install 'maekit[{name}]'")


def open_loggers(about: About) -> list[Reporter]:
    """Open what the recipe's ``log`` names; by default TensorBoard, where it is installed."""
    wanted: Sequence[str] | None = about.recipe.log
    if wanted is None:
        # It opens no folder whose name is not UTF-8.
        legible = str(about.folder) == as_text(str(about.folder))
        wanted = ("tensorboard",) if legible and find_spec("tensorboard") else ()
    return [_dispensable(name, about) for name in wanted]


def _dispensable(name: str, about: About) -> Dispensable[Logger]:
    make, where = _LOGGERS[name]
    return Dispensable(lambda: make(about), where or str(about.folder / name), about.say)


class TensorBoard(Logger):
    """Writer of scalars and pictures for TensorBoard, into ``tensorboard/``."""

    def __init__(self, about: About) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._hook = threading.excepthook
        threading.excepthook = self._take_thread_error
        try:
            # What an interrupted run logged after its checkpoint is made again.
            folder = str(about.folder / "tensorboard")
            self.writer = SummaryWriter(folder, purge_step=about.step + 1)
        except Exception:
            self._restore_hook()
            raise

    def numbers(self, step: int, values: dict[str, float]) -> None:
        """Add scalars."""
        add: Callable[..., None] = self.writer.add_scalar
        for name, value in values.items():
            add(name, value, step)

    def picture(self, step: int, name: str, image: Image) -> None:
        """Add an image."""
        import numpy as np

        add: Callable[..., None] = self.writer.add_image
        add(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close.

        Raises:
            OSError: something could not be written.
        """
        try:
            self.writer.flush()  # raises what its thread met; close does not
        finally:
            try:
                self.writer.close()
            finally:
                self._restore_hook()

    def _restore_hook(self) -> None:
        if threading.excepthook == self._take_thread_error:
            threading.excepthook = self._hook

    def _take_thread_error(self, args: threading.ExceptHookArgs, /) -> None:
        """Leave out the traceback of TensorBoard's thread: the next call raises the same error."""
        if not type(args.thread).__module__.startswith("tensorboard."):
            self._hook(args)


class WandB(Logger):
    """A run of Weights & Biases, below ``wandb/``; a resumed run goes on with the same one.

    W&B's own variables choose project, entity and mode. Where it knows no account nothing is asked:
    the run is written offline, for ``wandb sync``.
    """

    def __init__(self, about: About) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # to their makers, unasked
        import wandb

        self._wandb, self._about = wandb, about
        self.code = 1  # until it is known how the run ends
        kept = about.kept("wandb")
        name = kept.get("id") or uuid.uuid4().hex[:8]
        mode: Any = os.environ.get("WANDB_MODE")
        if mode is None and not wandb.login(verify=False, prompt=False):
            mode = "offline"
        self.run = wandb.init(
            project=kept.get("project") or os.environ.get("WANDB_PROJECT") or PROJECT,
            id=name,
            resume="allow",
            name=about.title,
            group=about.recipe.name,
            job_type=about.verb,
            config=as_dict(about.recipe),
            dir=str(about.folder),
            mode=mode,
            # Another run of this process is its owner's; the terminal and log.txt are ours.
            reinit="create_new",
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, finish_timeout=_PATIENCE
            ),
        )
        about.keep("wandb", kept | {"id": name, "project": str(self.run.project)})
        # A run that goes on begins a step later than it ended, and would drop what comes of that.
        self.run.define_metric(_STEP)
        self.run.define_metric("*", step_metric=_STEP)
        self.last = self.run.summary.get(_STEP) if self.run.resumed else None
        if self.run.offline:
            folder = Path(self.run.dir).parent
            about.say(Note(f"W&B is offline: `wandb sync {folder}` sends the run later"))
        elif self.run.url:
            about.say(Note(f"W&B: {self.run.url}"))

    def numbers(self, step: int, values: dict[str, float]) -> None:
        """Log numbers, unless the run had them before it was interrupted."""
        new = {name: value for name, value in values.items() if not self._had(step, name)}
        self._log(step, new)

    def picture(self, step: int, name: str, image: Image) -> None:
        """Log an image likewise."""
        if not self._had(step, name):
            self._log(step, {name: self._wandb.Image(image)})

    def _had(self, step: int, name: str) -> bool:
        if name.startswith(_EACH_STEP):
            return self.last is not None and step <= self.last
        return step <= int(self._about.kept("wandb").get(_LAST + name, -1))

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        if not values:
            return
        # Offline there is nothing to go on from: a resumed run's file begins anew, at any step.
        own = {"step": step} if self.run.offline else {}
        self.run.log({**values, _STEP: step}, **own)
        rare = {_LAST + name: str(step) for name in values if not name.startswith(_EACH_STEP)}
        if rare:
            self._about.keep("wandb", self._about.kept("wandb") | rare)

    def ended(self, result: Mapping[str, Any]) -> None:
        """Put the result's numbers beside the run."""
        self.code = result["exit"]
        self.run.summary.update(dict(_flat_numbers(result, "result/")))

    def close(self) -> None:
        """Finish the run as it ended; where a signal ended it, without waiting for long."""
        if self.code != INTERRUPTED:
            self.run.finish(exit_code=self.code)
            return
        met: list[Exception] = []

        def finish() -> None:
            try:
                self.run.finish(exit_code=self.code)
            except Exception as error:  # noqa: BLE001 - it is raised again below
                met.append(error)

        thread = threading.Thread(target=finish, daemon=True, name="maekit-wandb")
        thread.start()
        thread.join(_HURRY)
        if thread.is_alive():
            leave_hooks_out()  # W&B's own waits for its upload once more
            msg = f"it did not take all within {_HURRY:.0f} s; `wandb sync` sends the rest"
            raise TimeoutError(msg)
        if met:
            raise met[0]


def _told(uri: str) -> dict[str, str]:
    """Return what a run's folder, which is handed on, may say of a store: no password."""
    return {} if urlsplit(uri).password else {"uri": uri}


class MLflow(Logger):
    """A run of MLflow; a resumed run goes on with the same one.

    MLflow's own variables choose store and experiment (by default the recipe's name). All that
    asks the store is done by a thread, since it may take long to answer, or never does.
    """

    def __init__(self, about: About) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a connection nobody asked for
        import mlflow
        from mlflow.entities import Metric

        self._metric = Metric
        self._about = about
        kept = about.kept("mlflow")
        uri = os.environ.get("MLFLOW_TRACKING_URI") or kept.get("uri") or mlflow.get_tracking_uri()
        self.client = mlflow.MlflowClient(tracking_uri=uri)
        self.uri = str(uri)
        self.known: dict[str, int] | None = None  # of a resumed run: each metric's last step
        self.pictured: dict[str, int] = {}  # and each picture's
        self.patience = _PATIENCE
        self.status = "FAILED"
        self.error: Exception | None = None
        self.waiting: queue.SimpleQueue[Callable[[], object] | list[Any] | None]
        self.waiting = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._write, daemon=True, name="maekit-mlflow")
        self.thread.start()

    def _begin(self) -> None:
        """Make the run, or go on with that of an earlier start."""
        from mlflow.entities import Param

        about, kept = self._about, self._about.kept("mlflow")
        if "run" in kept:
            self.run = kept["run"]
            self.client.update_run(self.run, status="RUNNING")
            self.known = {}
            last = {key: step for key, step in kept.items() if key.startswith(_LAST)}
            self.pictured = {key.removeprefix(_LAST): int(step) for key, step in last.items()}
            return
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME"), about)
        tags = {"maekit.verb": about.verb, "maekit.folder": as_text(str(about.folder))}
        made = self.client.create_run(experiment, run_name=about.title, tags=tags)
        self.run = str(made.info.run_id)
        about.keep("mlflow", {"run": self.run} | _told(self.uri))
        flat = _flat(as_dict(about.recipe))
        params = [Param(key, str(value)[:_LONGEST_VALUE]) for key, value in flat]
        for some in _portions(params, _AT_ONCE):
            self.client.log_batch(self.run, params=some)

    def _experiment(self, name: str | None, about: About) -> str:
        name = name or about.recipe.name
        found = self.client.get_experiment_by_name(name)
        return str(self.client.create_experiment(name) if found is None else found.experiment_id)

    def numbers(self, step: int, values: dict[str, float]) -> None:
        """Hand numbers to the thread."""
        self._raise_what_it_met()
        now = int(time.time() * 1000)
        named = {_ODD.sub("_", key): value for key, value in values.items()}
        self.waiting.put([self._metric(key, value, now, step) for key, value in named.items()])

    def picture(self, step: int, name: str, image: Image) -> None:
        """Hand an image to the thread."""
        self._raise_what_it_met()
        picture = image.convert("RGB")
        self.waiting.put(lambda: self._send(picture, name, step))

    def ended(self, result: Mapping[str, Any]) -> None:
        """Put the result's numbers beside the run, which ended as it says."""
        code = result["exit"]
        self.patience = min(_PATIENCE, _HURRY) if code == INTERRUPTED else _PATIENCE
        self.status = {0: "FINISHED", INTERRUPTED: "KILLED"}.get(code, "FAILED")
        self.numbers(int(result.get("steps", 0)), dict(_flat_numbers(result, "result/")))

    def close(self) -> None:
        """Wait for the thread, and end the run."""
        self.waiting.put(None)
        self.thread.join(self.patience)
        if self.thread.is_alive():
            msg = f"it did not take all within {self.patience:.0f} s"
            raise TimeoutError(msg)
        self._raise_what_it_met()

    def _raise_what_it_met(self) -> None:
        if self.error is not None:
            raise self.error

    def _write(self) -> None:
        try:
            self._begin()
            ended = False
            while not ended:
                items = [self.waiting.get()]
                with suppress(queue.Empty):
                    while True:  # what has come meanwhile goes in one request
                        items.append(self.waiting.get_nowait())
                ended = None in items
                lists = (item for item in items if isinstance(item, list))
                new = [metric for metrics in lists for metric in metrics if not self._had(metric)]
                for some in _portions(new, _MOST_METRICS):
                    self.client.log_batch(self.run, metrics=some)
                for item in items:
                    if callable(item):
                        item()
            self.client.set_terminated(self.run, self.status)
        except Exception as error:  # noqa: BLE001 - the next call raises it
            self.error = error

    def _send(self, picture: Image, name: str, step: int) -> None:
        """Send a picture, unless the run had it before it was interrupted."""
        if step > self.pictured.get(name, -1):
            self.client.log_image(self.run, picture, key=name, step=step)
            kept = self._about.kept("mlflow")
            self._about.keep("mlflow", kept | {_LAST + name: str(step)})

    def _had(self, metric: Any) -> bool:  # noqa: ANN401 - MLflow's own
        """Return whether the run had it already, before it was interrupted."""
        if self.known is None:
            return False
        if metric.key not in self.known:
            steps = [each.step for each in self.client.get_metric_history(self.run, metric.key)]
            self.known[metric.key] = max(steps, default=-1)
        return bool(metric.step <= self.known[metric.key])


class Table(Logger):
    """``metrics.csv``: a row for each step, a column for each name."""

    file: BinaryIO
    start: int  # of the newest row in the file, in bytes
    end: int

    def __init__(self, about: About) -> None:
        self.path = about.folder / TABLE
        self.columns = ["step"]
        self.row: dict[str, str] = {}  # of the newest step, to which more may come
        rows = self._read()
        # What an interrupted run wrote after its checkpoint is made again.
        kept = [row for row in rows if row["step"].isdigit() and int(row["step"]) <= about.step]
        self.row = kept.pop() if kept else {}
        self._rewrite(kept)

    def numbers(self, step: int, values: dict[str, float]) -> None:
        """Add numbers to the row of their step, in the file at once: a run may be killed."""
        if self.row.get("step") != str(step):
            self.row, self.start = {"step": str(step)}, self.end
        self.row |= {key: f"{value:.9g}" for key, value in values.items()}
        new = [key for key in self.row if key not in self.columns]
        if new:
            self.file.close()
            rows = [row for row in self._read() if row["step"] != str(step)]
            self.columns += new
            self._rewrite(rows)
            return
        line = self._lines([self.row])
        self.file.seek(self.start)
        self.file.write(line)
        self.file.truncate()  # which flushes
        self.end = self.start + len(line)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _read(self) -> list[dict[str, str]]:
        if not self.path.is_file():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            rows = list(reader)
        if "step" not in (reader.fieldnames or ()):
            return []
        self.columns = list(reader.fieldnames or ())
        return [{key: row[key] for key in self.columns} for row in rows]

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        """Write the whole file: rows, and then the newest one."""
        head = self._lines([dict(zip(self.columns, self.columns, strict=True)), *rows])
        last = self._lines([self.row] if self.row else [])
        write_bytes(self.path, head + last)
        self.start, self.end = len(head), len(head) + len(last)
        self.file = self.path.open("r+b")

    def _lines(self, rows: list[dict[str, str]]) -> bytes:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, restval="", lineterminator="\n").writerows(rows)
        return text.getvalue().encode()


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a recipe by their dotted keys."""
    for key, each in value.items():
        if isinstance(each, dict):
            yield from _flat(each, f"{before}{key}.")
        else:
            yield before + key, each


def _flat_numbers(result: Mapping[str, Any], before: str) -> Iterator[tuple[str, float]]:
    """Yield the numbers of a result by their names; not those of each class, or each reason."""
    for key, each in result.items():
        if isinstance(each, dict) and key not in ("per_class", "left_out"):
            yield from _flat_numbers(each, f"{before}{key}/")
        elif isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each):
            yield before + key, each


def _portions(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


_PACKAGES = ("tensorboard", "wandb", "mlflow")  # what these loggers need, under the same names
# What makes each, and what a failure calls it, where that is not its name in the run's folder.
_LOGGERS: dict[str, tuple[Callable[[About], Logger], str | None]] = {
    "tensorboard": (TensorBoard, None),
    "wandb": (WandB, "W&B"),
    "mlflow": (MLflow, "MLflow"),
    "csv": (Table, TABLE),
}
