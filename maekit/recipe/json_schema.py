"""The JSON Schema of recipes, for editors: completion, descriptions and checks while typing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maekit.recipe.schema import (
    BackboneSpec,
    DataSpec,
    DecoderSpec,
    HeldOutSpec,
    MaskerSpec,
    PartSpec,
    Recipe,
    Split,
    TargetSpec,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic import BaseModel

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SPECS: tuple[type[PartSpec], ...] = (
    BackboneSpec,
    DecoderSpec,
    MaskerSpec,
    TargetSpec,
    DataSpec,
    HeldOutSpec,
)


@dataclass(frozen=True)
class PartSchema:
    """A part that recipes may name."""

    kind: str
    names: tuple[str, ...]  # what a recipe may call it
    options: type[BaseModel]


def json_schema(parts: Sequence[PartSchema]) -> Schema:
    """Return the schema of a recipe file in which ``parts`` are known.

    A file with ``extends`` may leave out what its parent gives, so nothing but the root's keys of
    a file without parent, and what decides between branches, is required.
    """
    schema = Recipe.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    for definition in definitions.values():
        definition.pop("required", None)
        for own in definition.get("properties", {}).values():
            if "oneOf" in own:  # without a name, more than one of the alternatives may fit
                own["anyOf"] = own.pop("oneOf")
    for spec in _SPECS:
        own = definitions[spec.__name__]["properties"]
        chosen = [part for part in parts if part.kind == spec.kind]
        definitions[spec.__name__] = _one_of(spec, own, chosen, definitions)
    required = schema.pop("required")
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "one parent recipe, relative to this file",
    }
    return {
        "$schema": DIALECT,
        **schema,
        # A recipe of rows may name what lies under it by ablate.base.
        "if": {"not": {"anyOf": [{"required": ["extends"]}, {"required": ["ablate"]}]}},
        "then": {"required": required},
    }


def _one_of(
    spec: type[PartSpec], own: Schema, parts: Iterable[PartSchema], definitions: Schema
) -> Schema:
    shared = {key: value for key, value in own.items() if key not in {"name", "held_out"}}
    branches: list[Schema] = []
    for part in parts:
        label = f"{part.kind}.{part.names[0]}".replace("/", ".")
        options = part.options.model_json_schema(
            by_alias=True, ref_template=f"#/$defs/{label}.{{model}}"
        )
        for name, inner in options.pop("$defs", {}).items():
            definitions[f"{label}.{name}"] = inner
        name = {
            "enum": list(part.names),
            "description": f"a part of {part.names[-1].partition('/')[0]}",
        }
        branches.append(
            {
                "title": part.names[0],
                "type": "object",
                "properties": {"name": name, **shared, **options.get("properties", {})},
                "required": ["name"],
                "additionalProperties": False,
            }
        )
    # Without a name: options for the part that the parent names.
    unnamed: Schema = {"title": "as in the parent", "type": "object"}
    unnamed["not"] = {"required": ["name"]}
    if spec is HeldOutSpec:
        unnamed["title"] = "a share of data.train, or as in the parent"
        unnamed["properties"] = {**Split.model_json_schema()["properties"], **shared}
    return {"description": (spec.__doc__ or "").strip(), "oneOf": [*branches, unnamed]}
