"""Lay out rows of cells as a table of text."""

from collections.abc import Container, Iterable, Sequence
from itertools import zip_longest


def aligned(rows: Iterable[Sequence[object]], *, right: Container[int] = ()) -> str:
    """Align columns two blanks apart, for a terminal.

    Args:
        rows: Cells, which become texts; a short row ends with empty cells.
        right: Columns whose cells end below each other, such as those of numbers; the others begin below each other.

    Returns:
        One line per row, without blanks at its end.
    """
    lines = _padded(rows, right)
    return '\n'.join('  '.join(line).rstrip() for line in lines)


def markdown(rows: Iterable[Sequence[object]]) -> str:
    """Write a table for a page of Markdown; the first row is its head."""
    head, *rest = ([str(cell) for cell in row] for row in rows)
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in (head, ['---'] * len(head), *rest))


def ruled(rows: Iterable[Sequence[object]]) -> str:
    """Draw lines around a table and between its head, its body and its last row, as the hosts' metrics do."""
    head, *body, foot = _padded(rows)
    rule = '+'.join(['', *('-' * (len(cell) + 2) for cell in head), ''])
    first, *middle, last = (f'| {" | ".join(line)} |' for line in (head, *body, foot))
    return '\n'.join([rule, first, rule, *middle, rule, last, rule])


def _padded(rows: Iterable[Sequence[object]], right: Container[int] = ()) -> list[list[str]]:
    """Return the cells of each row, all cells of a column with one width."""
    columns = zip_longest(*([str(cell) for cell in row] for row in rows), fillvalue='')
    padded = []
    for number, column in enumerate(columns):
        width = max(map(len, column))
        padded.append([cell.rjust(width) if number in right else cell.ljust(width) for cell in column])
    return [list(line) for line in zip(*padded, strict=True)]
