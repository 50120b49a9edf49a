"""HTML in which all text is escaped, and numbers as the page prints them."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence

MISSING = "\N{EN DASH}"
_JOINTS = re.compile(r"(?<=[/_])(?=\w)|(?<=\.)(?=[^\W\d])")  # never within a decimal
_DIGITS = 4  # significant ones of a printed number
_LARGEST_PLAIN, _SMALLEST_PLAIN = 1e6, 1e-3


class Html(str):
    """Text that is markup already; everything else is escaped when it is put into an element."""

    __slots__ = ()


def tag(name: str, *inside: str, **attributes: str | bool | None) -> Html:
    """An element.

    Args:
        inside: text, which is escaped, and ``Html``, which is not.
        attributes: ``class_`` and ``aria_label`` stand for ``class`` and ``aria-label``; True is
            an attribute without a value, False and None leave it out.
    """
    words = [name]
    for key, value in attributes.items():
        attribute = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(attribute)
        elif value not in (False, None):
            words.append(f'{attribute}="{html.escape(str(value))}"')
    return Html(f"<{' '.join(words)}>{join(inside)}</{name}>")


def join(parts: Iterable[str]) -> Html:
    """Text and markup, one after the other."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part) for part in parts))


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    label: str,
    numbers: bool = False,
    marked: Iterable[int] = (),
) -> Html:
    """A table that scrolls by itself where it is wider than the page.

    Args:
        columns: headings.
        rows: each begins with its own heading.
        label: what assistive technology calls it.
        numbers: align all but the first column at the right.
        marked: indices of rows to point out.
    """
    chosen = set(marked)
    head = tag("tr", *(tag("th", text, scope="col") for text in columns))
    body = [
        tag(
            "tr",
            tag("th", breakable(cells[0]), scope="row"),
            *(tag("td", cell if numbers else breakable(cell)) for cell in cells[1:]),
            class_="differs" if index in chosen else None,
        )
        for index, cells in enumerate(rows)
    ]
    grid = tag(
        "table", tag("thead", head), tag("tbody", *body), class_="numbers" if numbers else None
    )
    # A region that scrolls must take the focus, or the keyboard cannot scroll it.
    return tag("div", grid, class_="scroll", role="region", aria_label=label, tabindex="0")


def breakable(text: str) -> Html:
    """Text whose paths and keys may be broken behind ``/``, ``.`` and ``_``, not within words."""
    if isinstance(text, Html):
        return text
    return Html("<wbr>".join(html.escape(part) for part in _JOINTS.split(text)))


def number(value: float | None) -> str:
    """Four significant digits; whole numbers whole, with thousands marked."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == int(value) and abs(value) < _LARGEST_PLAIN * 1000:
        return f"{int(value):,}"
    if not _SMALLEST_PLAIN <= abs(value) < _LARGEST_PLAIN:
        mantissa, exponent = f"{value:.{_DIGITS - 2}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    decimals = _DIGITS - 1 - math.floor(math.log10(abs(value)))
    return f"{value:,.{max(0, decimals)}f}"


def percent(value: float | None) -> str:
    """A fraction in percent."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def duration(seconds: float | None) -> str:
    """Hours and minutes, minutes and seconds, or seconds."""
    if seconds is None:
        return MISSING
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min {left:02d} s" if minutes else f"{left} s"
