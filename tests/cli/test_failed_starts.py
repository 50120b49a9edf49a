"""Starts that fail leave no numbered run; what can be resumed says the whole command."""

from __future__ import annotations

import errno
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_runs import result_of, same_weights

from maekit.engine import loop
from maekit.errors import BUG, RecipeError, code_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("data.train.path=nowhere",), 6),
        (("data.train.path=empty",), 6),
        (("data.size=20",), 2),
        (("pretrain.batch.per_device=3",), 2),
        (("--from", "nothing.safetensors"), 2),
    ],
)
def test_no_number_is_taken(cli: Cli, small: str, words: tuple[str, ...], code: int) -> None:
    Path("empty").mkdir()
    assert cli("pretrain", small, "-q", *words).code == code
    assert not Path("runs").exists() or not list(Path("runs").rglob("*"))
    # A folder that was named keeps its result.json.
    if code == 6:
        assert cli("pretrain", small, "-q", "--out", "own", *words).code == code
        assert result_of("own")["exit"] == code


@pytest.mark.parametrize("more", [(), ("--resume",), ("--overwrite",)])
@pytest.mark.parametrize("wrong", ["data.size=20", "data.train.path=nowhere", "pretrain.steps=0"])
def test_a_refused_start_does_not_spoil_a_named_folder(
    cli: Cli, small: str, wrong: str, more: tuple[str, ...]
) -> None:
    """A typo costs nothing: the corrected command takes the same folder, and its log goes on."""
    words = ("pretrain", small, "-q", "--out", "run")
    assert cli(*words, wrong).code in {2, 6}
    before = Path("run/log.txt").read_bytes() if Path("run/log.txt").is_file() else b""
    done = cli(*words, *more)
    assert done.code == 0, done.err
    assert result_of("run")["exit"] == 0
    assert Path("run/log.txt").read_bytes().startswith(before)
    assert not Path("run.overwritten").exists()


@pytest.mark.parametrize(
    ("verb", "wrong", "words"),
    [
        ("pretrain", "data.size=20", "does not divide"),
        ("pretrain", "model.backbone.heads=7", "heads"),
        ("pretrain", "pretrain.masker={name: tube, ratio: 0.01}", "tube"),
        ("finetune", "data.size=20", "does not divide"),
        ("finetune", "finetune.blocks=9", "blocks"),
    ],
)
def test_what_does_not_fit_is_said_before_data_is_read(
    cli: Cli, labeled: str, verb: str, wrong: str, words: str
) -> None:
    more = ("--from", "scratch", "finetune={}") if verb == "finetune" else ()
    failed = cli(verb, labeled, "-q", wrong, "data.train.path=nowhere", *more)
    assert failed.code == 2, failed.err
    assert words in failed.err
    assert "nowhere" not in failed.err


def test_probes_and_fine_tunings_neither(cli: Cli, labeled: str) -> None:
    for words in (("probe",), ("finetune", "finetune={}"), ("probe", "probe.protocol=paper")):
        failed = cli(words[0], labeled, *words[1:], "--from", "scratch", "data.val.path=nowhere")
        assert failed.code == 6
        assert not Path("runs/labeled").exists()


def test_an_unfinished_folder_of_another_recipe_is_not_taken(cli: Cli, small: str) -> None:
    """One that failed before its first checkpoint, as on other data, but had begun."""
    assert cli("pretrain", small, "-q", "--out", "run", "data.train.path=nowhere").code == 6
    Path("run/bad_files.jsonl").touch()
    written = Path("run/recipe.yaml").read_bytes()
    refused = cli("pretrain", small, "-q", "--out", "run", "--resume")
    assert refused.code == 2
    assert "data.train.path: " in refused.err
    assert Path("run/recipe.yaml").read_bytes() == written


def interrupt_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original, done = loop.update, 0

    def update(*arguments: object) -> object:
        nonlocal done
        done += 1
        if done == steps:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "update", update)


def test_the_hint_is_the_whole_command(
    cli: Cli, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("pretrain.steps=4", "seed=5", "pretrain.masker.ratio=0.75")
    assert cli("pretrain", small, "-q", *words, "--out", "whole").code == 0
    with monkeypatch.context() as patched:
        interrupt_after(3, patched)
        stopped = cli("pretrain", small, *words, "--out", "my run")
    assert stopped.code == 75
    typed = stopped.err.partition("continue with ")[2].partition("\n")[0]
    assert typed == "maekit pretrain 'my run/recipe.yaml' --resume --out 'my run'"
    assert cli(*shlex.split(typed)[1:], "-q").code == 0
    assert same_weights("my run", "whole")
    # The very same bytes, though the recipe was read back from a file.
    files = [Path(run) / "weights.safetensors" for run in ("my run", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("/psm_7e8f77c8", BUG),
        ("/dev/shm/psm_7e8f77c8", BUG),
        (None, BUG),
        ("photos/tmp.jpg", RecipeError.exit_code),
        ("list.txt", RecipeError.exit_code),
        ("/data/psm_set/list.txt", RecipeError.exit_code),
    ],
)
def test_an_internal_name_is_no_path_to_check(name: str | None, code: int) -> None:
    error = FileNotFoundError(errno.ENOENT, "No such file or directory", name)
    assert code_of(error) == code
