"""Tables of methods from records: what stands in which cell, and where it comes from."""

from __future__ import annotations

from typing import Any

import pytest

from simulations.running.runs import Kind, make_record
from simulations.tables.comparison import Table, markdown_table, without
from simulations.tables.distil import WHOLE_DATA, markdown_page, published, tables_of


def result(method: str, accuracies: list[float], *, payload: int = 8000, samples: int = 10, **settings: Any) -> dict:
    named = {
        "data": "fashion-mnist",
        "method": method,
        "images_per_class": 1,
        "byte_budget": None,
        "bits": 8,
        "seed": 0,
    }
    metrics = {
        "accuracy": sum(accuracies) / len(accuracies),
        "accuracies": accuracies,
        "payload_bytes": payload,
        "samples": samples,
        "steps": 1234,
        "distil_cpu_seconds": 590.0,
        "distil_peak_bytes": 900_000_000,
        "distil_start_bytes": 600_000_000,
    }
    return make_record("distil", {**named, "method_settings": {}, "distil_seconds": 600.0, **settings}, metrics, 1.0)


def cells(table: Table, row: int = 0) -> dict[str, str]:
    return dict(zip(table.columns, table.rows[row], strict=True))


def test_a_row_says_what_the_record_says() -> None:
    (table,) = tables_of([result("herding", [0.7, 0.72])])
    assert cells(table) == {
        "method": "herding †",
        "family": "core set",
        "accuracy (%)": "71.0 ± 1.4",
        "random, same bytes (%)": "–",
        "published (%)": "67.0 ᴿ",
        "gap": "+4.0",
        "CPU time": "9 min 50 s",
        "peak memory": "900 MB (+300 MB)",
        "stored": "8.00 kB",
        "steps": "1,234",
        "seeds": "1",
    }
    assert "1 image per class" in table.title
    assert any("Recalled" in note for note in table.notes)


def test_tables_are_sorted_by_accuracy_and_split_by_size_and_data() -> None:
    records = [result("random", [0.5]), result("dm", [0.8]), result("herding", [0.6])]
    records += [result("dm", [0.9], images_per_class=10), result("dm", [0.4], data="cifar10")]
    tables = tables_of(records)
    assert [[row[0] for row in table.rows] for table in tables] == [["dm", "herding †", "random †"], ["dm"], ["dm"]]
    assert [cells(table)["published (%)"] for table in tables] == ["–", "26.0", "–"]


def test_a_budget_by_the_clock_on_a_busy_machine_is_noted() -> None:
    """590 CPU-seconds in 600 are a machine to oneself, in 900 they are not; a selection has no budget to miss."""
    for method, wall, noted in (("dm", 600.0, False), ("dm", 900.0, True), ("random", 900.0, False)):
        record = result(method, [0.5], device="cpu")
        record["metrics"] |= {"distil_seconds": wall, "steps": 0 if method == "random" else 10}
        (table,) = tables_of([record])
        assert any("590 CPU-seconds in 900 s" in note for note in table.notes) == noted


def test_seeds_share_a_row() -> None:
    (table,) = tables_of([result("dm", [0.8]), result("dm", [0.9], seed=1)])
    assert (cells(table)["accuracy (%)"], cells(table)["seeds"]) == ("85.0 ± 7.1", "2")


def test_random_samples_stand_beside_a_method_if_no_further_one_fits_its_bytes() -> None:
    """Ten samples of 800 bytes: one more would fit into 8,801 bytes, so that ten are no equal of it any more."""
    random = result("random", [0.5], payload=8000)
    larger = result("random", [0.6], payload=8800, samples=11, byte_budget=8800)
    for payload, expected in ((7999, "–"), (8000, "50.0"), (8799, "50.0"), (8800, "60.0"), (9601, "–")):
        tables = tables_of([result("dm", [0.8], payload=payload), random, larger])
        assert cells(tables[0])["random, same bytes (%)"] == expected, payload
        assert len(tables) == 1, "a baseline by bytes is no row"
    other_seed = result("random", [0.5], payload=8000, seed=3)
    (table,) = tables_of([result("dm", [0.8]), other_seed])
    assert cells(table)["random, same bytes (%)"] == "–"


def test_a_failure_is_a_row_at_the_end_and_its_reason_a_note() -> None:
    failed = result("herding", [0.1])
    failed = make_record(
        Kind.DISTIL_FAILED, failed["settings"], {"error": "DivergenceError", "reason": "loss | NaN"}, 1.0
    )
    page = markdown_page([failed, result("random", [0.5])])
    (table,) = tables_of([failed, result("random", [0.5])])
    assert [row[2] for row in table.rows] == ["50.0", "failed"]
    assert cells(table, 1)["gap"] == "–"
    assert table.notes[-1] == "herding † failed: loss | NaN"
    assert "failed: loss \\| NaN" in page


def test_the_page_tells_budget_machine_and_settings() -> None:
    record = result("dm", [0.8], method_settings={"architecture": "convnet:width=64", "steps_per_network": 5})
    page = markdown_page([record])
    assert "Budget of each cell: 600 s of wall-clock time." in page
    assert record["environment"]["processor"] in page
    assert f"torch {record['environment']['versions']['torch']}" in page
    assert '- dm: `architecture="convnet:width=64" steps_per_network=5`' in page


def test_markdown_keeps_hostile_text_in_its_cell() -> None:
    table = Table("a|b", ("name", "value"), (("x|y\nz", "1.0"), ("<b>", "–")), ("note *",))
    lines = markdown_table(table).splitlines()
    assert lines[0] == "## a\\|b"
    assert lines[2:6] == ["| name | value |", "| --- | ---: |", "| x\\|y z | 1.0 |", "| \\<b> | – |"]
    assert lines[-1] == "note \\*"


def test_a_column_can_be_left_out() -> None:
    table = without(Table("t", ("a", "b", "c"), (("1", "2", "3"),)), "b")
    assert (table.columns, table.rows) == (("a", "c"), (("1", "3"),))


def test_published_numbers_are_fractions_below_those_of_all_data() -> None:
    found = published("idc", "cifar10", 10)
    assert found is not None
    assert (found.accuracy, found.recalled) == (pytest.approx(0.675), False)
    assert "four images" in found.note
    assert published("dm", "fashion-mnist", 1) is None
    assert published("idc", "cifar10", 7) is None
    for data, whole in WHOLE_DATA.items():
        for method in ("random", "herding", "dc", "mtt", "rtp"):
            values = [published(method, data, size) for size in (1, 10, 50)]
            accuracies = [value.accuracy for value in values if value is not None]
            assert accuracies == sorted(accuracies)
            assert all(0.1 < accuracy < whole.accuracy for accuracy in accuracies)
