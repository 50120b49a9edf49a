"""YAML 1.2 typing, marks, and the limits that keep a small file from becoming a large one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maekit.errors import RecipeError
from maekit.recipe.dump import to_yaml
from maekit.recipe.yaml12 import MAX_DEPTH, MAX_NODES, Mark, parse


def value_of(text: str) -> object:
    node = parse(f"key: {text}\n", "f.yaml")
    assert node is not None
    return node.fields["key"].plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-4", 1e-4),
        ("1.5E+3", 1500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-0", 0),
        ("0o17", 15),
        ("0x1F", 31),
        ("017", 17),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("Null", None),
        ("!!str 12", "12"),
        ("'1e-4'", "1e-4"),
        # Text in YAML 1.2, something else in YAML 1.1.
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("y", "y"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2024-01-31", "2024-01-31"),
        ("0b11", "0b11"),
        ("=", "="),
        ("nan", "nan"),
        ("1e", "1e"),
        ("--1", "--1"),
    ],
)
def test_core_schema(text: str, expected: object) -> None:
    value = value_of(text)
    assert value == expected
    assert type(value) is type(expected)


def test_infinities_and_nan() -> None:
    assert value_of(".inf") == math.inf
    assert value_of("-.INF") == -math.inf
    assert math.isnan(float(str(value_of(".NaN"))))


def test_every_value_knows_its_line() -> None:
    node = parse("a: 1\nb:\n  - x\n  - y: 2\n", "f.yaml")
    assert node is not None
    marks = {path: node.mark for path, node in node.walk()}
    assert marks == {
        (): Mark("f.yaml", 1),
        ("a",): Mark("f.yaml", 1),
        ("b",): Mark("f.yaml", 2),
        ("b", 0): Mark("f.yaml", 3),
        ("b", 1): Mark("f.yaml", 4),
        ("b", 1, "y"): Mark("f.yaml", 4),
    }
    assert str(node.mark_of(("b", 1, "absent", "deep"))) == "f.yaml:4"


def test_duplicate_key_names_both_lines() -> None:
    with pytest.raises(RecipeError) as caught:
        parse("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", "f.yaml")
    assert caught.value.where == "f.yaml:5"
    assert "c: duplicate key, first at f.yaml:3" in caught.value.what


def bomb(levels: int) -> str:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (bomb(9), None, f"{MAX_NODES:,} values"),
        ("a: &a [1, *a]", 1, "inside the value"),
        ("a: &a\n  b: *a", 1, "inside the value"),
        ("a: 1\nb: " + "[" * 500 + "]" * 500, 2, f"{MAX_DEPTH} levels"),
        ("a: 1\nb: " + "[" * 100_000, 2, f"{MAX_DEPTH} levels"),
        ("a: *nowhere", 1, "undefined alias"),
        ("a: 1\n\tb: 2", 2, "not YAML"),
        ("a: 1\n---\nb: 2", 2, "single document"),
        ("a: [1, 2", 1, "not YAML"),
        ("a: b: c", 1, "mapping values"),
        ("a: {split:0.2}", 1, "{split:0.2} is one key without a value"),
        ("a: {b: {c:none, d: 1}}", 1, "{c:none} is one key without a value"),
        ("a: {b: 1,\n c:2}", 2, "a colon needs a space"),
        ("1: x", 1, "a key must be text"),
        ("true: x", 1, "a key must be text"),
        ("? [a, b]\n: x", 1, "a key must be text"),
        ("a: 1\n<<: {b: 1}", 2, "merge keys"),
        ("a: !!python/object/apply:os.system [ls]", 1, "tag"),
        ("a: !!binary aGk=", 1, "tag"),
        ("a: !!int x", 1, "not a valid int"),
        ("a: !!bool maybe", 1, "not a valid bool"),
        ("a: " + "9" * 5000, 1, "not a valid int"),
        ('a: "\\ud800"', 1, "not a valid str"),
        ("a: 1\nb: \x07", 2, "U+0007"),
    ],
)
def test_refused(text: str, line: int | None, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(text, "f.yaml")
    assert words in caught.value.what
    assert caught.value.hint
    assert caught.value.where is not None
    assert caught.value.where == f"f.yaml:{line}" or line is None


def test_aliases_within_the_budget_are_written_out() -> None:
    node = parse("a: &x [1, 2]\nb: *x", "f.yaml")
    assert node is not None
    assert node.plain == {"a": [1, 2], "b": [1, 2]}


def test_nothing_is_none() -> None:
    assert parse("", "f.yaml") is None
    assert parse("# a comment\n", "f.yaml") is None


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")))
    | st.from_regex(r"[-+0-9.eEox_:~]{1,8}", fullmatch=True)
    | st.sampled_from(
        ["on", "yes", "null", "true", "0o7", "1e-4", ".inf", "~", "", "<<", "2020-01-01"]
    )
)


@given(
    st.recursive(
        scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text("abc:#1e-~ "), inner)
    )
)
def test_what_is_dumped_reads_back_unchanged(value: object) -> None:
    node = parse(to_yaml({"key": value}), "f.yaml")
    assert node is not None
    read = node.fields["key"].plain
    assert repr(read) == repr(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-4, "1e-4"), (1.5e-5, "1.5e-5"), (0.05, "0.05"), (800.0, "800.0"), (1e22, "1e22")],
)
def test_floats_are_written_as_people_write_them(value: float, text: str) -> None:
    assert to_yaml({"lr": value}) == f"lr: {text}\n"


@settings(max_examples=300)
@given(st.text() | st.text("ab:-[]{}&*!|>#%@`'\"\n\t ,?~<1.e\\u"))
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    refused: RecipeError | None = None
    try:
        parse(text, "f.yaml")
    except RecipeError as error:
        refused = error
    if refused is not None:
        assert str(refused.where).startswith("f.yaml:")
        assert refused.hint
