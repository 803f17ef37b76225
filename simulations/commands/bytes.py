"""``fedcl-distill bytes``: accuracy against true bytes, distilled sets beside compressed real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from fedcl_distill.engine import allocate_bits
from fedcl_distill.files import write_atomically
from fedcl_distill.synthetic.quantise import Bits
from simulations.commands.options import takes_settings
from simulations.commands.output import DEFAULT_OUT, Out, rich_table, say_where, watching
from simulations.data import load_splits
from simulations.formats import mean, number, percent, spread
from simulations.report.drawing import chart, draw_points, look, standalone, use_byte_axis, use_percent_axis
from simulations.running.console import open_console
from simulations.running.pool import PoolSettings
from simulations.running.runs import RESULTS, Kind, Record
from simulations.scenarios.distil import DistilSettings, records_of_cells, run_table, with_budget
from simulations.tables.comparison import Table, markdown_table


@dataclass(frozen=True)
class Way:
    """A way to spend bytes on a data set.

    Attributes:
        label: in table and plot; a dagger marks real samples.
        method, settings: see :class:`DistilSettings`; no method takes that of the command, with these settings in place
            of its parameterization.
        bits: of a stored value; None is best tiles for the budget (see :func:`allocate_bits`).
    """

    label: str
    method: str | None
    settings: dict[str, Any]
    bits: Bits | None = 8


WAYS = (
    Way("compressed random †", "compressed", {}),
    Way("compressed herding †", "compressed", {"selection": "herding"}),
    Way("random, 8 bits †", "random", {}),
    Way("random, 4 bits †", "random", {}, 4),
    Way("tiles, 2 or 4 bits", None, {}, None),
    Way("DCT", None, {"parameterization": "dct"}),
    Way("as stored by default", None, {}),
)

Sizes = Annotated[list[int], typer.Option("--bytes", min=1, help="Largest payload; repeat it for a curve.")]
Seconds = Annotated[float, typer.Option("--seconds", min=0, help="Budget of every distillation.")]
Markdown = Annotated[Path | None, typer.Option("--markdown", help="Write the table to this file.", metavar="FILE.md")]
Plot = Annotated[Path | None, typer.Option("--plot", help="Draw the curve into this file.", metavar="FILE.svg")]
_MAIN = ("data", "train_limit", "method", "method_settings", "distil_clock", "protocol", "device", "seed")


@takes_settings(DistilSettings, main=_MAIN, defaults={"method": ["dm"], "protocol": ["quick"]})
def bytes_curve(
    cells: list[DistilSettings],
    sizes: Sizes = [1000, 4000, 20_000],  # noqa: B006 - typer copies it
    seconds: Seconds = 300.0,
    out: Out = DEFAULT_OUT,
    markdown: Markdown = None,
    plot: Plot = None,
) -> None:
    """Accuracy against true bytes: distilled sets as DCT, as tiles and as by default, beside compressed real samples.

    Every payload is counted as it would be sent, provenance apart, and fills its budget without exceeding it. What the
    folder already holds is not run again; Ctrl-C keeps what is done, and the same command goes on from there.
    """
    console, results = open_console(), out / RESULTS
    ways = [(way, size, of_way(way, size, cell, seconds)) for size in sizes for way in WAYS for cell in cells]
    with watching(console) as watcher:
        run_table(with_budget([cell for _, _, cell in ways]), results, PoolSettings(out, 1, 1, None), watcher)
    found = {record["key"]: record for record in records_of_cells([cell for _, _, cell in ways], results)}
    lines = lines_of([(way.label, size, found.get(cell.key)) for way, size, cell in ways])
    table = table_of_bytes(", ".join(sorted({cell.data for cell in cells})), sizes, lines)
    console.print(rich_table(table))
    if markdown is not None:
        write_atomically(markdown, markdown_table(table).encode())
        say_where(console, "table", markdown)
    if plot is not None:
        write_atomically(plot, standalone(draw_lines(lines)).encode())
        say_where(console, "curve", plot)
    say_where(console, "results", results)


def of_way(way: Way, size: int, cell: DistilSettings, seconds: float) -> DistilSettings:
    """The run that spends ``size`` bytes in this way."""
    own, bits = dict(way.settings), way.bits
    if bits is None:
        train = load_splits(cell.data, root=cell.data_root, train_limit=1).train
        spent = allocate_bits(size, train)
        own, bits = {"parameterization": f"tiles:factor={spent.tiles}"}, spent.bits
    settings = own if way.method else {**cell.method_settings, **own}
    return replace(
        cell,
        method=way.method or cell.method,
        method_settings=settings,
        bits=bits,
        byte_budget=size,
        images_per_class=1,
        distil_seconds=seconds,
    )


Lines = dict[str, dict[int, list[Record]]]


def lines_of(found: Sequence[tuple[str, int, Record | None]]) -> Lines:
    """For each way and each size its finished runs."""
    lines: Lines = {}
    for label, size, record in found:
        if record is not None and record["kind"] == Kind.DISTIL:
            lines.setdefault(label, {}).setdefault(size, []).append(record)
    return lines


def table_of_bytes(data: str, sizes: Sequence[int], lines: Lines) -> Table:
    """One row a way, one column a size; a cell has the accuracy, the true bytes and the number of samples."""
    rows = [(label, *(_cell(by_size.get(size, [])) for size in sizes)) for label, by_size in lines.items()]
    notes = ("† real samples: not private.", "A cell is accuracy in %, true bytes, decoded samples.")
    return Table(
        f"{data} · accuracy against true bytes", ("", *(f"{size:,} bytes" for size in sizes)), tuple(rows), notes
    )


def _cell(records: Sequence[Record]) -> str:
    accuracies = _metric(records, "accuracy")
    if not accuracies:
        return "–"
    size, samples = (mean(_metric(records, name)) or 0.0 for name in ("payload_bytes", "samples"))
    return f"{percent(accuracies)} · {size:,.0f} · {samples:.0f}"


def _metric(records: Sequence[Record], name: str) -> list[float]:
    return [value for record in records if (value := number(record["metrics"].get(name))) is not None]


def draw_lines(lines: Lines) -> str:
    """As SVG, accuracy over the bytes that payloads truly take."""

    def draw(axes: Any) -> None:
        for index, (label, by_size) in enumerate(lines.items()):
            points = []
            for records in by_size.values():
                accuracies = [100 * value for value in _metric(records, "accuracy")]
                points.append(
                    (mean(_metric(records, "payload_bytes")) or 0.0, mean(accuracies) or 0.0, spread(accuracies))
                )
            draw_points(axes, sorted(points), label, look(index))
        use_byte_axis(axes, "payload (bytes, log scale)")
        use_percent_axis(axes, "test accuracy (%)")

    return chart(draw, "Accuracy against true bytes")
