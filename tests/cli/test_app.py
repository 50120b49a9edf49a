"""The declarations of the commands agree with what they run."""

from __future__ import annotations

import inspect
from importlib import import_module

from maekit.cli.app import TARGETS


def test_a_commands_options_are_its_functions_parameters() -> None:
    assert len(TARGETS) > 10
    for command, (target, fixed) in TARGETS.items():
        module, _, name = target.partition(":")
        function = getattr(import_module(f"maekit.cli.{module}"), name)
        wanted = inspect.signature(function).parameters
        given = inspect.signature(command).parameters
        required = {key for key, each in wanted.items() if each.default is each.empty}
        assert not set(given) & set(fixed), target
        assert required <= {*given, *fixed} <= set(wanted), target
