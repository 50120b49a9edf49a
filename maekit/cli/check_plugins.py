"""``maekit plugins check``: which promises of the contract installed parts keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from maekit import testing
from maekit.cli.output import print_json, print_table, say
from maekit.cli.recipes import kind_of
from maekit.errors import PartError, RecipeError
from maekit.installed import normal
from maekit.recipe.explain import suggest
from maekit.recipe.yaml12 import parse
from maekit.registry import Entry, listed, options_of
from maekit.registry import entry as find_entry
from maekit.registry import find as find_part
from maekit.testing.promises import BrokenPromiseError, Outcome
from maekit.text import quantity

_CHECKS: Mapping[str, Callable[..., tuple[Outcome, ...]]] = {
    "backbones": testing.check_backbone,
    "datasets": testing.check_dataset,
    "decoders": testing.check_decoder,
    "maskers": testing.check_masker,
    "targets": testing.check_target,
}


@dataclass(frozen=True)
class _Checked:
    """What became of one part; ``missing`` are options without which it is not built."""

    entry: Entry
    outcomes: tuple[Outcome, ...]
    missing: tuple[str, ...] = ()

    @property
    def broken(self) -> list[Outcome]:
        """The promises that it breaks."""
        return [each for each in self.outcomes if each.broken is not None]


def check(
    what: str,
    settings: Sequence[str] | None,
    kind: str | None,
    without: Sequence[str] | None,
    *,
    json: bool,
) -> int:
    """Check a part, or all parts of a distribution; return 2 where one breaks a promise."""
    parts = _parts(what, None if kind is None else kind_of(kind))
    given = _settings(settings or (), parts)
    found = [_checked(each, given.get(each, {}), without or ()) for each in parts]
    failed = any(each.broken or each.missing for each in found)
    code = PartError.exit_code if failed else 0
    if json:
        print_json({"verb": "plugins check", "exit": code, "parts": [_plain(f) for f in found]})
        return code
    print_table(
        ("part", "promise", ""),
        [(each.entry.full_name, *_row(row)) for each in found for row in each.outcomes],
    )
    for each in found:
        say(f"{each.entry}: {_told(each)}", err=bool(each.broken or each.missing))
    return code


def _parts(what: str, kind: str | None) -> list[Entry]:
    """Return the parts of a distribution, or the one part of a name.

    Raises:
        PartError: there is none, or parts of several kinds have the name.
    """
    installed = listed(kind)
    own = [each for each in installed if each.distribution == normal(what)]
    if own:
        return own
    bare = what.rpartition("/")[2]
    kinds = sorted({each.kind for each in installed if each.name == bare})
    if len(kinds) == 1:
        return [find_entry(kinds[0], what)]
    if kinds:
        hint = "add --kind " + " or --kind ".join(each[:-1] for each in kinds)
        raise PartError(f"'{what}' is {' and '.join(each[:-1] for each in kinds)}", hint=hint)
    names = {each.name for each in installed} | {each.distribution for each in installed}
    near = suggest(what, sorted(names))
    hint = f"{near or ''} `maekit plugins list` shows all parts".strip()
    raise PartError(
        f"no installed part, and no distribution with parts, is called '{what}'", hint=hint
    )


def _settings(words: Sequence[str], parts: Sequence[Entry]) -> dict[Entry, dict[str, object]]:
    """Read ``KEY=VALUE``, or ``NAME.KEY=VALUE`` where there are several parts; values are YAML.

    Raises:
        RecipeError: it is neither.
    """
    found: dict[Entry, dict[str, object]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        name, dot, option = key.partition(".")
        meant = [each for each in parts if each.name == name] if dot else list(parts[:1])
        if not equals or not meant or (len(parts) > 1 and not dot):
            names = ", ".join(each.name for each in parts)
            hint = "KEY=VALUE" if len(parts) == 1 else f"NAME.KEY=VALUE, with NAME one of {names}"
            raise RecipeError(f"'{word}' sets no option of these parts", hint=hint)
        node = parse(value)
        option = option if dot else key
        found.setdefault(meant[0], {})[option] = None if node is None else node.plain
    return found


def _checked(entry: Entry, options: dict[str, object], without: Sequence[str]) -> _Checked:
    part: type[Any] = find_part(entry.kind, entry.full_name)
    kind = options_of(entry.kind, entry.full_name)
    needed = [name for name, field in kind.model_fields.items() if field.is_required()]
    missing = tuple(name for name in needed if name not in options)
    if missing:
        return _Checked(entry, (), missing)
    try:
        return _Checked(entry, _CHECKS[entry.kind](part, options, without=without))
    except BrokenPromiseError as error:
        return _Checked(entry, error.outcomes)
    except ValidationError as error:
        problem = error.errors()[0]
        where = f"{entry.full_name}: {'.'.join(map(str, problem['loc']))}"
        raise RecipeError(problem["msg"], where=where) from error
    except ValueError as error:  # of `without`
        raise RecipeError(str(error), where="--without") from error


def _row(outcome: Outcome) -> tuple[str, str]:
    if outcome.broken is not None:
        return outcome.promise, f"BROKEN: {outcome.broken}"
    return outcome.promise, "kept" if outcome.left is None else f"- {outcome.left}"


def _told(found: _Checked) -> str:
    if found.missing:
        needed = " ".join(f"{name}=..." for name in found.missing)
        said = f"not checked, as it has no default for {', '.join(found.missing)}"
        return f"{said}; maekit plugins check {found.entry.full_name} {needed}"
    if found.broken:
        names = ", ".join(each.promise for each in found.broken)
        return f"breaks {quantity(len(found.broken), 'promises')}: {names}"
    kept = sum(each.left is None for each in found.outcomes)
    return f"keeps all {kept} promises that it can be held to"


def _plain(found: _Checked) -> dict[str, Any]:
    entry = found.entry
    return {
        "kind": entry.kind,
        "name": entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "missing": list(found.missing),
        "promises": [asdict(each) for each in found.outcomes],
    }
