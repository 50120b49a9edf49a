"""``--compare-expected``: a result beside the numbers that its recipe says it should reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maekit.cli.output import print_table

if TYPE_CHECKING:
    from maekit.recipe.schema import Expected


def compare(
    expected: Sequence[Expected], verb: str, result: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One record for each expected number of this verb.

    Args:
        expected: the recipe's; ``metric`` is ``verb.key`` with the keys of result.json
            (``probe.top1``, ``probe.floor.random``).
        verb: whose result it is.
        result: result.json.

    Returns:
        ``{metric, protocol, result_protocol, value, expected, low, high, inside, source}``;
        ``value`` is None where the result has no such number or is of another protocol, and
        ``inside`` None where it or the band is missing.
    """
    return [
        _compared(each, _number(result, each.metric.split(".")[1:], each.protocol), result)
        for each in expected
        if each.metric.split(".")[0] == verb
    ]


def _number(result: Mapping[str, Any], path: Sequence[str], protocol: str | None) -> float | None:
    value: Any = result
    if protocol not in (None, result.get("protocol")):
        return None
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else None


def _compared(each: Expected, value: float | None, result: Mapping[str, Any]) -> dict[str, Any]:
    low, high = _band(each)
    known = value is not None and low is not None and high is not None
    return {
        "metric": each.metric,
        "protocol": each.protocol,
        "result_protocol": result.get("protocol"),
        "value": value,
        "expected": each.value,
        "low": low,
        "high": high,
        "inside": low <= value <= high if known else None,  # type: ignore[operator]
        "source": each.source,
    }


def _band(each: Expected) -> tuple[float | None, float | None]:
    if each.band is None:
        return None, None
    if isinstance(each.band, tuple):
        return each.band
    return each.value - each.band, each.value + each.band


def tell_comparison(records: Sequence[Mapping[str, Any]]) -> None:
    """Print what was compared; that nothing was expected is said too."""
    rows = [
        (
            " ".join(str(each[key]) for key in ("metric", "protocol") if each[key]),
            "-" if each["value"] is None else f"{each['value']:.4f}",
            f"{each['expected']:.4f}",
            "-" if each["low"] is None else f"{each['low']:.4f} to {each['high']:.4f}",
            _verdict(each),
            str(each["source"]),
        )
        for each in records
    ]
    print_table(
        ("metric", "measured", "expected", "band", "verdict", "source"),
        rows or [("nothing", "", "", "", "the recipe expects no number of this verb", "")],
    )


def _verdict(record: Mapping[str, Any]) -> str:
    found = record["result_protocol"]
    if record["protocol"] not in (None, found):
        return f"not compared: this run's protocol is {found or 'unnamed'}"
    if record["value"] is None:
        return "not measured"
    return {True: "inside", False: "OUTSIDE", None: "no band"}[record["inside"]]
