"""Compare a result with the numbers that its recipe says it should reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maekit.recipe.schema import Expected


def compare(
    expected: Sequence[Expected], verb: str, result: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return one record for each expected number of this verb.

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
