"""Progress on terminals and in logs, numbers with units."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

import simulations.running.console
from simulations.costs import tune_allocator
from simulations.formats import byte_size, percent, plural, seconds
from simulations.running.console import PlainWatcher, RichWatcher, watcher_for


def test_a_log_gets_plain_lines(monkeypatch):
    monkeypatch.setattr(simulations.running.console, "_SECONDS_BETWEEN_LINES", 0.0)
    stream = io.StringIO()
    watcher = watcher_for(Console(file=stream))
    assert isinstance(watcher, PlainWatcher)
    with watcher.stage("outer"):
        with watcher.stage("inner") as stage:
            stage.update(0.25, "loss [0.5]")
        watcher.note("result")
    lines = stream.getvalue().splitlines()
    assert lines[:4] == ["outer …", "  inner …", "  inner: 25 %, loss [0.5]", "  result"]
    assert lines[4].startswith("outer: done in ")
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_gets_bars_inside_each_other():
    stream = io.StringIO()
    watcher = watcher_for(Console(file=stream, force_terminal=True, width=100))
    assert isinstance(watcher, RichWatcher)
    with watcher.stage("outer"):
        with watcher.stage("inner") as stage:
            stage.update(1.7, "beyond")
        watcher.note("result")
    assert all(text in stream.getvalue() for text in ("outer", "  inner", "result"))


def test_eighty_columns_have_room_for_the_time_that_is_left():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, color_system=None)
    watcher = RichWatcher(console)
    with watcher.stage("distilled · fashion-mnist · 10 experiences · a long description of a run") as stage:
        stage.update(0.5, "step 1,000 · 12.3/s · loss 0.1234 and more")
        watcher._bars.refresh()
    shown = [line for line in re.split(r"[\r\n]+", stream.getvalue()) if "50 %" in line]
    assert shown
    assert all("left" in line and "step 1,0" in line for line in shown)


def test_a_log_has_a_line_for_deep_stages_only_where_they_last(monkeypatch):
    stream = io.StringIO()
    watcher = PlainWatcher(Console(file=stream))
    with watcher.stage("all"), watcher.stage("run"):
        with watcher.stage("short") as stage:
            stage.update(0.5)
        monkeypatch.setattr(simulations.running.console, "_SECONDS_BETWEEN_LINES", 0.0)
        with watcher.stage("long") as stage:
            stage.update(0.5, "step 5")
    assert stream.getvalue().splitlines()[:3] == ["all …", "  run …", "    long: 50 %, step 5"]


def test_bars_disappear_when_a_stage_fails():
    watcher = RichWatcher(Console(file=io.StringIO(), force_terminal=True))
    with pytest.raises(ValueError), watcher.stage("outer"):
        raise ValueError
    with watcher.stage("again"):
        pass


def test_numbers_are_short_and_have_units():
    assert [byte_size(n) for n in (0, 999, 1000, 12_345, 999_960, 5e9)] == [
        "0 B",
        "999 B",
        "1.00 kB",
        "12.3 kB",
        "1.00 MB",
        "5.00 GB",
    ]
    assert [seconds(s) for s in (0.04, 42.4, 125, 7800)] == ["0.0 s", "42 s", "2 min 05 s", "2 h 10 min"]
    assert percent([0.951, 0.957]) == "95.4 ± 0.4"
    assert percent([0.5]) == "50.0"
    assert percent([]) == byte_size(None) == seconds(None) == "–"
    assert [plural(1, "seed"), plural(2, "seed")] == ["1 seed", "2 seeds"]


def test_tuning_the_allocator_does_no_harm():
    assert tune_allocator() in (True, False)
