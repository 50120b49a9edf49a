"""``maekit predict``: print and write what a classifier answers for any files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from maekit.cli.evaluate import views_of
from maekit.cli.input_words import unlisted
from maekit.cli.kept_output import KeptOutput, format_of
from maekit.cli.output import print_json, print_table, say
from maekit.cli.quantities import seconds
from maekit.cli.reporters import shown
from maekit.data.identity import identify
from maekit.datasets.folders import Tally
from maekit.datasets.named_files import find_files
from maekit.datasets.named_windows import NamedWindows, windows_of
from maekit.engine import distributed
from maekit.engine.events import Emit, Note
from maekit.engine.left_out import announce_left_out, left_out_of
from maekit.engine.precision import pick_device
from maekit.errors import INTERRUPTED, DataError, Interrupted, RecipeError
from maekit.evaluate.answers import FORMATS, Columns, Format, write_answers
from maekit.evaluate.embed import arrow_library, digest_of_inputs
from maekit.evaluate.feature_cache import FeatureShards
from maekit.evaluate.pictured import Pictured, make_folder
from maekit.evaluate.predict import HERE, VERB, answers_of, cutting_of, scorer_of
from maekit.evaluate.predict import predict as score
from maekit.evaluate.way import VAL, Request, judged_set
from maekit.progress import counted
from maekit.stop import StopSignal
from maekit.text import quantity
from maekit.weights.heads import read_classes
from maekit.weights.locate import newest_classifier

if TYPE_CHECKING:
    from maekit.contracts import Dataset
    from maekit.datasets.named_windows import Window
    from maekit.evaluate.answers import Answer
    from maekit.evaluate.scorer import Scorer

BAD_FILES = DataError.exit_code
SHOWN = 20  # rows of the table on stdout
MOST = 1000  # predictions in the JSON on stdout


class Inputs(NamedTuple):
    """What is asked about.

    Attributes:
        dataset: of them.
        digest: of what they are now.
        windows: whether they are windows of videos.
        left_out: by reason.
    """

    dataset: Dataset
    digest: Any
    windows: bool
    left_out: dict[str, int]


def predict(
    inputs: Sequence[str] | None,
    source: str | None,
    top: int,
    form: Format | None,
    out: Path | None,
    of_set: Literal["val"] | None,
    every: str | None,
    window: str | None,
    recipe: str | None,
    views: str | None,
    classes: Path | None,
    pictures: Path | None,
    batch: int | None,
    workers: int | None,
    overwrite: bool,
    lock: bool,
    device: str | None,
    json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Ask about all inputs; return the exit code: 6 where some could not be read."""
    _refuse_nonsense(inputs, of_set, every, window)
    step = None if every is None else seconds(every, "--every")
    length = None if window is None else seconds(window, "--window")
    where = pick_device(device)
    with (
        shown(quiet=quiet, verbose=verbose) as terminal,
        distributed.joined(where),
        StopSignal(),
        ExitStack() as stack,
    ):
        kind = format_of(out, form, FORMATS)
        target = out or Path(f"predictions.{kind}")
        output = distributed.on_first(lambda: KeptOutput.at(target, terminal, overwrite=overwrite))
        if kind == "parquet":
            arrow_library()  # that it is missing is better known before the work than after it
        if source is None:
            located = distributed.on_first(newest_classifier)
            source = located.source
            terminal(Note(f"weights: {located.description}"))
        names = None if classes is None else read_classes(classes)
        number = None if views is None else views_of(views)
        data = None if of_set else HERE
        request = Request(source, recipe, (), data, number, names, classes)
        scorer = scorer_of(request, where, terminal)
        asked = _asked(inputs, of_set, scorer, step, length, terminal)
        columns = Columns(scorer.described, top, windows=asked.windows)
        about = scorer.about(request) | {"inputs": asked.digest, "window": [step, length]}
        distributed.on_first(lambda: None if pictures is None else make_folder(pictures))
        distributed.on_first(lambda: stack.enter_context(output.held(locks=lock)))
        shards = FeatureShards(output.parts, about)
        terminal(Note(_described(scorer, asked)))
        announce_left_out("the inputs", asked.left_out, terminal)

        def answered(left_out: Counter[str]) -> Iterator[Answer]:
            middle = scorer.reader(asked.dataset).center_index
            return answers_of(shards, asked.dataset, middle, left_out)

        def finish() -> int:
            told = Told(json)
            noted = told.noting(answered(told.left_out), terminal)
            write_answers(output.target, kind, columns, noted)
            shards.remove(terminal)
            if json:
                where = {"output": str(output.target), "pictures": _name(pictures)}
                print_json(_result(scorer, request, asked, columns, told) | where)
            else:
                _print(columns, told, output.target)
            return told.code

        try:
            score(scorer, asked.dataset, shards, scorer.reading(batch, workers))
            if pictures is not None:
                drawn = Pictured(pictures, scorer, asked.dataset, top)
                _draw(drawn, lambda: answered(Counter()), terminal)
            return distributed.on_first(finish)
        except Interrupted:
            text = f"interrupted; the same command resumes from {shards.folder}"
            terminal(Note(text, warning=True))
            return INTERRUPTED


def _draw(drawn: Pictured, answers: Callable[[], Iterator[Answer]], emit: Emit) -> None:
    """Draw the answers, each rank its share of them: nobody waits while one draws all."""
    files = sum(distributed.together(lambda: drawn.draw(answers())))
    emit(Note(f"pictures: {quantity(files, 'files')} in {drawn.folder}"))


def _name(path: Path | None) -> str | None:
    return None if path is None else str(path)


class Told:
    """What is kept of answers that go by, to be printed."""

    def __init__(self, json: bool) -> None:
        self.most = MOST if json else SHOWN
        self.answers: list[Answer] = []
        self.errors: list[dict[str, str]] = []
        self.left_out: Counter[str] = Counter()
        self.count = 0

    @property
    def code(self) -> int:
        """The exit code: that of bad files where some could not be read."""
        return BAD_FILES if self.errors else 0

    def noting(self, answers: Iterator[Answer], emit: Emit) -> Iterator[Answer]:
        """Pass answers on; those that are errors are said."""
        for answer in answers:
            self.count += 1
            if len(self.answers) < self.most:
                self.answers.append(answer)
            if answer.error is not None:
                self.errors.append({"input": answer.input, "error": answer.error})
                emit(Note(f"{answer.input}: {answer.error}", warning=True))
            yield answer


def _result(
    scorer: Scorer, request: Request, asked: Inputs, columns: Columns, told: Told
) -> dict[str, Any]:
    """Return what is printed for programs."""
    some = [dict(columns.row(answer)) for answer in told.answers]
    return {
        "verb": VERB,
        "exit": told.code,
        "inputs": told.count,
        "kind": scorer.described.kind,
        "classes": len(scorer.described.outputs),
        "weights": request.source,
        "settings": scorer.settings,
        "errors": told.errors,
        "left_out": asked.left_out | dict(told.left_out),
        # Of more, the file has all.
        "predictions": some if told.count <= MOST else None,
    }


def _refuse_nonsense(
    inputs: Sequence[str] | None, of_set: str | None, every: str | None, window: str | None
) -> None:
    """Refuse options that do not go together.

    Raises:
        RecipeError: says which.
    """
    if of_set and inputs:
        raise RecipeError("names its own inputs", where="--set", hint="leave INPUT out")
    if not of_set and not inputs:
        hint = "pictures, videos, folders, quoted patterns; or --set val"
        raise RecipeError("which files?", where="INPUT", hint=hint)
    if window is not None and every is None:
        raise RecipeError("means nothing without --every", where="--window", hint="add --every 2s")
    if of_set and every is not None:
        raise RecipeError("is for files that are named", where="--every", hint="leave --set out")


def _asked(
    inputs: Sequence[str] | None,
    of_set: str | None,
    scorer: Scorer,
    step: float | None,
    length: float | None,
    emit: Emit,
) -> Inputs:
    if of_set:
        return _own_set(scorer, emit)
    return distributed.on_first(lambda: _named(inputs or (), scorer, step, length))


def _named(
    words: Sequence[str], scorer: Scorer, step: float | None, length: float | None
) -> Inputs:
    """Find the files that words name, and cut videos into windows."""
    tally = Tally()
    moving = scorer.header.clip[0] > 1
    found = find_files(list(unlisted(words, VERB)), moving=moving, purpose=VERB, tally=tally)
    cutting = cutting_of(step, length, scorer.spec)
    windows: list[Window] = []
    with counted("looking at videos" if cutting else "inputs", len(found), "files") as count:
        for place, file in enumerate(found, 1):
            windows += windows_of([file], cutting)
            count(place)
    digest = digest_of_inputs(each.path for each in found)
    return Inputs(NamedWindows(windows), digest, cutting is not None, tally.left_out)


def _own_set(scorer: Scorer, emit: Emit) -> Inputs:
    """Open the set that the recipe judges on."""
    dataset = judged_set(scorer.recipe, emit)
    digest = identify(dataset).model_dump(mode="json")
    left_out = left_out_of({VAL: dataset}, {}).get(VAL, {})
    return Inputs(dataset, digest, False, left_out)


def _described(scorer: Scorer, asked: Inputs) -> str:
    outputs, views = scorer.described.outputs, scorer.views
    times = quantity(views.clips * views.crops, "views")
    things = "windows" if asked.windows else "inputs"
    named = quantity(len(asked.dataset), things)
    return f"{named}, {times} of each; {quantity(len(outputs), 'outputs')}"


def _print(columns: Columns, told: Told, target: Path) -> None:
    names = columns.names[:-1]
    few = names[: len(names) if columns.kind != "multilabel" else 2 + 2 * columns.windows]
    rows = []
    for answer in told.answers:
        row = columns.row(answer)
        cells = [_cell(row[name]) for name in few]
        if answer.error is not None:
            cells[-1] = answer.error
        rows.append(cells)
    print_table(few, rows)
    more = told.count - len(told.answers)
    if more > 0:
        say(f"{more:,} more in {target}")
    else:
        say(f"written: {target}", err=True)


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.3f}"
