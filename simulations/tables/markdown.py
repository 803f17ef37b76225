"""Tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from simulations.tables.comparison import Table


def markdown_table(table: Table, level: int = 2) -> str:
    """Heading, rows and notes of ``table``; numbers to the right, words to the left."""
    rule = ["---:" if _is_numeric(texts) else "---" for texts in zip(*table.rows, strict=True)]
    lines = [f"{'#' * level} {escape(table.title)}", ""]
    lines += [_row([escape(column) for column in table.columns]), _row(rule)]
    lines += [_row([escape(text) for text in row]) for row in table.rows]
    for note in table.notes:
        lines += ["", escape(note)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """``text`` on one line, without what Markdown would take for markup or for the end of a cell."""
    flat = " ".join(text.split())
    for sign in ("\\", "|", "*", "_", "`", "<", "["):
        flat = flat.replace(sign, "\\" + sign)
    return flat


def _is_numeric(texts: Sequence[str]) -> bool:
    return any(text[:1].isdigit() or text[:1] in "+-" for text in texts if text)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
