"""Curves of attacks on logarithmic axes, where the few who can be named with confidence are seen."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.ticker import NullFormatter

from simulations.report.drawing import look, new_figure, show_legend, style, to_svg
from simulations.tables.arms import Arm, Scenario
from simulations.tables.formats import numbers

_LOW = 5e-4


def drawing_of_curves(scenario: Scenario) -> str:
    """SVG: for each arm, the curve of its attack with the largest area; nothing without results."""
    lines = {arm.label: line for arm in scenario.arms if (line := _curve(arm)) is not None}
    if not lines:
        return ""
    with style():
        figure = new_figure(7.0, 6.0)
        axes = figure.subplots()
        for index, (label, (false_rates, true_rates, attack)) in enumerate(lines.items()):
            looks = {**look(index), "marker": ""}
            axes.plot(false_rates, true_rates, label=f"{label}: {attack}", **looks)
        axes.plot([_LOW, 1], [_LOW, 1], color="#020202", linewidth=0.8, linestyle=":")
        for axis, name in ((axes.xaxis, "false positive rate"), (axes.yaxis, "true positive rate")):
            axis.set_label_text(f"{name} (log scale)")
        axes.set(xscale="log", yscale="log", xlim=(_LOW, 1), ylim=(_LOW, 1.05))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        axes.grid(visible=False, which="minor")
        show_legend(figure, axes)
        return to_svg(figure, "True against false positive rates of membership inference")


def _curve(arm: Arm) -> tuple[Sequence[float], Sequence[float], str] | None:
    """Of the arm's first seed."""
    attacks = arm.records[0]["metrics"].get("attacks")
    if not isinstance(attacks, dict) or not attacks:
        return None
    best = max(attacks, key=lambda name: attacks[name]["auc"]["value"])
    curve = attacks[best].get("curve") or {}
    false_rates, true_rates = (numbers(curve.get(name)) for name in ("fpr", "tpr"))
    return (false_rates, true_rates, best) if false_rates and len(false_rates) == len(true_rates) else None
