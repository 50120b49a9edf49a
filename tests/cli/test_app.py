"""The declarations of the commands agree with what they run."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from typing import Any

import pytest
import typer

from maekit.cli.app import command_tree, main
from maekit.cli.declare import TARGETS


def test_a_commands_options_are_its_functions_parameters() -> None:
    assert len(TARGETS) > 10
    for command, (target, fixed) in TARGETS.items():
        module, _, name = target.partition(":")
        function = getattr(import_module(f"maekit.cli.{module}"), name)
        wanted = inspect.signature(function).parameters
        given = set(inspect.signature(command).parameters) - {"devices"}  # starts processes
        required = {key for key, each in wanted.items() if each.default is each.empty}
        assert not set(given) & set(fixed), target
        assert required <= {*given, *fixed} <= set(wanted), target


def commands(command: Any, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    below = getattr(command, "commands", {})
    found = [words]
    for name, each in below.items():
        found += commands(each, (*words, name))
    return found


def test_help_shows_flags_as_flags(capsys: pytest.CaptureFixture[str]) -> None:
    every = commands(command_tree())
    assert len(every) > 15
    for words in every:
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        shown = capsys.readouterr().out
        assert "--help" in shown
        assert not re.search("bool", shown, re.IGNORECASE), words


def test_help_is_whole_at_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for words in commands(command_tree()):
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= 80, words
        assert "…" not in shown, words
        assert not re.search(r"<int|<str|<Path|<float|list\[|\[\[|\.\.\.\}", shown), words
        for line in shown.splitlines():  # what is to be typed is not broken into two lines
            assert line.count("<") == line.replace("x>=", "").count(">"), (words, line)


def test_no_lock_reaches_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("maekit.cli.verbs.train", lambda **options: seen.append(options) or 0)
    for words in ([], ["--no-lock"]):
        with pytest.raises(SystemExit):
            main(["pretrain", "quickstart", *words])
    assert [each["lock"] for each in seen] == [True, False]


def test_every_from_names_the_forms_that_it_takes() -> None:
    tree = command_tree()
    forms = {
        "pretrain": {"RUN", "FILE", "timm:NAME", "hf:FOLDER", "demo"},
        "finetune": {"RUN", "FILE", "timm:NAME", "hf:FOLDER", "demo", "scratch"},
        "probe": {"RUN", "FILE", "timm:NAME", "hf:FOLDER", "demo", "scratch"},
        "embed": {"RUN", "FILE", "timm:NAME", "hf:FOLDER", "demo"},
        "reconstruct": {"RUN", "FILE", "hf:FOLDER", "demo"},
        "tokenizer": {"RUN", "FILE"},
    }
    for name, expected in forms.items():
        command = tree.commands[name]
        options = command.get_params(typer.Context(command))
        (option,) = [each for each in options if "--from" in each.opts]
        assert set(re.findall(r"[\w:]+", option.help)) >= expected, name
        if "scratch" not in expected:
            assert "scratch" not in option.help
