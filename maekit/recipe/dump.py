"""Recipes written as YAML that ``maekit.recipe.load`` reads back unchanged."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import yaml
from pydantic import BaseModel

from maekit.recipe.schema import HeldOutSpec, PartSpec, Recipe
from maekit.recipe.yaml12 import CORE_SCHEMA

_SMALL = 1e-3


def dump(recipe: Recipe) -> str:
    """Return a recipe as YAML, with defaults, but without keys whose default is null."""
    return to_yaml(as_dict(recipe))


def as_dict(model: BaseModel) -> dict[str, Any]:
    """Return a recipe or a section of it as plain dicts, lists and scalars, by the file's keys.

    Keys that always follow from others (``exclude``) are left out.
    """
    plain: dict[str, Any] = {}
    given = model.model_dump(mode="json", by_alias=True)
    for name, field in type(model).model_fields.items():
        if field.exclude:
            continue
        key = field.alias or name
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            plain[key] = as_dict(value)
        elif value is not None or field.default is not None:
            plain[key] = given[key]
    if isinstance(model, HeldOutSpec) and model.held_out is not None:
        del plain["name"]  # and its options: they are data.train's
        return as_dict(model.held_out) | plain
    if isinstance(model, PartSpec):
        plain |= model.options.model_dump(mode="json", by_alias=True)
    return plain


def to_yaml(plain: object) -> str:
    """Return plain dicts, lists and scalars as YAML 1.2."""
    return yaml.dump(
        plain,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=False,
    )


def to_flow(value: object) -> str:
    """Return a plain value as YAML on one line, as an override takes it."""
    text = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=float("inf"),
        default_flow_style=True,
    )
    return text.removesuffix("...\n").strip()


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 or 1.2 would take for something else than text."""

    # Own copy: PyYAML's table is a class attribute shared by all dumpers.
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: list(rules) for first, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        """Write equal values out, never an alias."""
        return True


for _tag, _pattern, _first in CORE_SCHEMA:
    _Dumper.add_implicit_resolver(_tag, _pattern, list(_first))


def _float(dumper: _Dumper, value: float) -> yaml.ScalarNode:
    text = repr(value)
    if "n" in text:  # inf, -inf, nan
        text = text.replace("inf", ".inf").replace("nan", ".nan")
    elif 0 < abs(value) < _SMALL or "e" in text:
        # The digits of repr, so that the value reads back exactly: 1.5e-05 as 1.5e-5.
        mantissa, exponent = f"{Decimal(text).normalize():e}".split("e")
        text = f"{mantissa}e{int(exponent)}"
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


def _list(dumper: _Dumper, value: list[Any]) -> yaml.SequenceNode:
    simple = not any(isinstance(item, (dict, list)) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=simple)


_Dumper.add_representer(float, _float)
_Dumper.add_representer(list, _list)
