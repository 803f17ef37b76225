"""Colours of heat maps: light for little, deep blue for much; legible on light and dark pages, also without colour."""

from __future__ import annotations

from simulations.report.blocks import HeatCell
from simulations.tables.formats import ABSENT

_STOPS = ((246, 248, 252), (158, 202, 225), (49, 130, 189), (8, 48, 107))
_DARK_FROM = 0.5


def heat_cell(value: float | None) -> HeatCell:
    """The field for a fraction in [0, 1], as whole per cent; grey without one."""
    if value is None:
        return HeatCell(ABSENT, "#8886", "inherit")
    share = min(1.0, max(0.0, value))
    ink = "#ffffff" if share >= _DARK_FROM else "#16202c"
    return HeatCell(f"{100 * value:.0f}", _colour(share), ink)


def _colour(share: float) -> str:
    position = share * (len(_STOPS) - 1)
    index = min(int(position), len(_STOPS) - 2)
    rest = position - index
    mixed = (round(a + (b - a) * rest) for a, b in zip(_STOPS[index], _STOPS[index + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)
