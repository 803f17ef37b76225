"""Cross-architecture results as tables: a row for each set, a column for each kind of network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from simulations.running.records import Record
from simulations.scenarios.cross_architecture import KIND, SCORES
from simulations.tables.comparison import Table
from simulations.tables.formats import ABSENT, number, numbers, percent

_NOTE = "Test accuracy in per cent: mean ± standard deviation over networks, all trained from scratch on the set alone."
_SCORES_NOTE = (
    "LRS, ARS: label- and augmentation-robust score of DD-Ranking in per cent; an ARS of 27 is no better than random."
)


def cross_tables(records: Sequence[Record]) -> list[Table]:
    """A table for each data set and protocol, best set first; scores beside it where there are any."""
    judged = [record for record in records if record["kind"] == KIND]
    places = dict.fromkeys((record["settings"]["data"], record["settings"]["protocol"]) for record in judged)
    return [_table(place, records) for place in places]


def _table(place: tuple[str, str], records: Sequence[Record]) -> Table:
    here = [r for r in records if (r["settings"].get("data"), r["settings"].get("protocol")) == place]
    judged, scored = ([r for r in here if r["kind"] == kind] for kind in (KIND, SCORES))
    architectures = list(dict.fromkeys(record["settings"]["architecture"] for record in judged))
    sets = {record["settings"]["set"]: record["settings"] for record in judged}
    order = sorted(sets, key=lambda one: -(_mean_accuracy(_of(judged, one)) or 0.0))
    rows = []
    for one in order:
        row = [f"{sets[one]['method']} ({sets[one]['samples']} samples)"]
        for architecture in architectures:
            found = [r for r in _of(judged, one) if r["settings"]["architecture"] == architecture]
            row.append(percent([value for record in found for value in numbers(record["metrics"].get("accuracies"))]))
        if scored:
            row += [_score(_of(scored, one), name) for name in ("label_robust_score", "augmentation_robust_score")]
        rows.append(tuple(row))
    columns = ("set", *architectures, *(("LRS", "ARS") if scored else ()))
    notes = (_NOTE, _SCORES_NOTE) if scored else (_NOTE,)
    return Table(f"{place[0]} · {place[1]} protocol, by architecture", columns, tuple(rows), notes)


def _of(records: Iterable[Record], digest: str) -> list[Record]:
    return [record for record in records if record["settings"].get("set") == digest]


def _mean_accuracy(records: Sequence[Record]) -> float | None:
    values = [value for record in records for value in numbers(record["metrics"].get("accuracies"))]
    return sum(values) / len(values) if values else None


def _score(records: Sequence[Record], name: str) -> str:
    values = [value for record in records if (value := number(record["metrics"].get(name))) is not None]
    return percent(values) if values else ABSENT
