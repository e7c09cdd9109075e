"""Small tables for `_repr_html_`: escaped, without style sheets or scripts of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice

MOST_ROWS = 20
MOST_CHARACTERS = 200  # of a cell


def table(
    title: str, rows: Iterable[Sequence[object]], columns: Sequence[str] = (), note: str = ""
) -> str:
    """An HTML table with a title above and a note below; of many rows the first ones.

    Args:
        rows: the first cell of each is its heading.
        columns: titles, none where cells need none.

    >>> table("a < b", [("x", 1)])
    '<div><p><b>a &lt; b</b></p><table><tbody><tr><th>x</th><td>1</td></tr></tbody></table></div>'
    """
    rows = iter(rows)
    body = "".join(
        f"<tr><th>{_cell(head)}</th>{''.join(f'<td>{_cell(cell)}</td>' for cell in cells)}</tr>"
        for head, *cells in islice(rows, MOST_ROWS)
    )
    more = sum(1 for _ in rows)
    notes = [f"and {more:,} more" if more else "", note]
    head = "".join(f"<th>{_cell(column)}</th>" for column in columns)
    return (
        f"<div><p><b>{_cell(title)}</b></p><table>"
        + (f"<thead><tr>{head}</tr></thead>" if columns else "")
        + f"<tbody>{body}</tbody></table>"
        + "".join(f"<p>{_cell(text)}</p>" for text in notes if text)
        + "</div>"
    )


def _cell(value: object) -> str:
    text = str(value)
    if len(text) > MOST_CHARACTERS:
        text = text[: MOST_CHARACTERS - 1] + "…"
    return escape(text)
