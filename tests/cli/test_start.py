"""The first moments of a command: a locale that knows ASCII alone, and signals while importing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_recipes import IMAGES, draw_tints, sets, write_recipe

ASCII = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
# Every verb on files, lists, classes and outputs whose names are not ASCII, some not UTF-8.
VERBS = (
    ("recipes", "validate", "größe.yaml"),
    ("pretrain", "größe.yaml", "--out", "läufe/1"),
    ("finetune", "größe.yaml", "--from", "läufe/1", "--out", "läufe/2"),
    ("probe", "größe.yaml", "--from", "läufe/1", "--out", "läufe/3"),
    ("embed", "liste.txt", "bilder", "--from", "läufe/1", "--out", "ä.npz"),
    ("reconstruct", "bilder/val", "--from", "läufe/1", "--out", "schön"),
    ("report", "läufe/1", "läufe/2", "--out", "bericht-ß.html"),
    ("weights", "inspect", "läufe/1"),
)


def environment(locale: str) -> dict[str, str]:
    """Return this process's environment with another locale."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG"))}
    return {**kept, **ASCII, "LC_ALL": locale, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, count in (("train", 4), ("val", 2)):
        draw_tints(tmp_path / "bilder" / part, count, seed=count)
        (tmp_path / "bilder" / part / "green").rename(tmp_path / "bilder" / part / "grün")
        odd = os.fsencode(tmp_path / "bilder" / part / "red") + b"/na\xefve.png"
        (tmp_path / "bilder" / part / "red" / "00.png").rename(os.fsdecode(odd))
    (tmp_path / "liste.txt").write_text("bilder/val/grün/00.png\n", encoding="utf-8")
    short = {"steps": 2, "warmup": {"steps": 1}, "batch": {"global": 4}}
    probe = {"kind": "knn", "pixels": 8, "knn": {"k": 3}}
    write_recipe(
        tmp_path / "größe.yaml",
        IMAGES,
        sets("bilder"),
        {"pretrain": {"steps": 2, "batch": {"global": 4}}, "finetune": short, "probe": probe},
    )
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("locale", ["C", pytest.param("POSIX", marks=pytest.mark.nightly)])
def test_every_verb_works_where_the_locale_is_ascii(folder: Path, locale: str) -> None:
    for words in VERBS:
        command = [sys.executable, "-m", "maekit", *words]
        done = subprocess.run(
            command, cwd=folder, env=environment(locale), capture_output=True, check=False
        )
        told = (done.stdout + done.stderr).decode("utf-8")
        assert done.returncode == 0, told
        assert "Traceback" not in told
    result = json.loads((folder / "läufe/2/result.json").read_text(encoding="utf-8"))
    assert "grün" in result["per_class"]


def test_names_are_read_and_printed_where_the_locale_is_ascii(folder: Path) -> None:
    command = [sys.executable, "-m", "maekit", "recipes", "show", "größe.yaml"]
    command += ["data.val.path=übung"]
    done = subprocess.run(
        command, cwd=folder, env=environment("C"), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "path: übung" in done.stdout.decode("utf-8")


# The command line's own import waits until a signal has come.
WAITING = """
import importlib.abc, os, signal, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "maekit.cli.app":
            os.kill(os.getpid(), NUMBER)
            signal.pause()  # whoever does not leave waits until the test is ended
sys.meta_path.insert(0, Finder())
from maekit.__main__ import main
main()
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGHUP"])
def test_a_signal_before_the_command_line_is_there_leaves_resumable(name: str) -> None:
    number = int(getattr(signal, name))
    code = WAITING.replace("NUMBER", str(number))
    done = subprocess.run(
        [sys.executable, "-c", code, "pretrain", "quickstart"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 75
    assert "Traceback" not in done.stderr
