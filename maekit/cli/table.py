"""Tables as plain text: nothing in them is cut, and no word is broken.

Where no terminal reads them each row is one line. On a terminal that is too narrow, cells are
broken between words; where that is not enough, or would make columns too narrow to read, each row
becomes a block: its first cell on a line of its own, so that it can be copied, the others below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len

_GAP = 2  # columns of the terminal between two of the table
_READABLE = 16  # a column that has to be broken is at least so wide


def table_lines(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int | None
) -> list[str]:
    """Write a table.

    Args:
        columns: the headings.
        rows: cells without line ends.
        width: of the terminal; None: there is none.
    """
    cells = [list(columns), *map(list, rows)]
    natural = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    widths = natural if width is None else _widths(cells, natural, width)
    if widths is None:
        return [line for row in rows for line in _block(columns, row, width or 0)]
    return [line for row in cells for line in _lines(row, widths)]


def _widths(
    cells: Sequence[Sequence[str]], natural: Sequence[int], width: int
) -> Sequence[int] | None:
    """Share the terminal among the columns; None where it is too narrow for them."""
    free = width - _GAP * (len(natural) - 1)
    least = [
        min(most, max(_READABLE, *(cell_len(word) for cell in column for word in cell.split(" "))))
        for most, column in zip(natural, zip(*cells, strict=True), strict=True)
    ]
    least[0] = natural[0]  # what stands first is what is copied: never broken
    over = free - sum(least)
    if over < 0:
        return None
    # The widest give way, until all have room.
    shared = list(natural)
    while sum(shared) > free:
        widest = max(
            (index for index, each in enumerate(shared) if each > least[index]),
            key=shared.__getitem__,
        )
        shared[widest] -= 1
    return shared


def _lines(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    parts_of = [broken(cell, width) for cell, width in zip(row, widths, strict=True)]
    for place in range(max(map(len, parts_of))):
        parts = [each[place] if place < len(each) else "" for each in parts_of]
        padded = [part + " " * (w - cell_len(part)) for part, w in zip(parts, widths, strict=True)]
        yield (" " * _GAP).join(padded).rstrip()


def broken(cell: str, width: int) -> list[str]:
    """Break text between words; a word that is too long stays whole on a line of its own."""
    if cell_len(cell) <= width:
        return [cell]
    lines = [""]
    for word in cell.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _block(columns: Sequence[str], row: Sequence[str], width: int) -> Iterator[str]:
    yield row[0]
    indent = max(map(cell_len, columns[1:]), default=0)
    for heading, cell in zip(columns[1:], row[1:], strict=True):
        if cell:
            lead = f"  {heading}{' ' * (indent - cell_len(heading))}  "
            lines = broken(cell, max(1, width - len(lead)))
            yield from (f"{lead}{lines[0]}", *(" " * cell_len(lead) + line for line in lines[1:]))
