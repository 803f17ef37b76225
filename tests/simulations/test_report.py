"""Truth: the page as a parser of HTML sees it."""

from __future__ import annotations

import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from simulations.report import write_report
from simulations.running.console import RichWatcher
from simulations.running.runs import append_record, make_record

HOSTILE = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Tags, texts and everything a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            inside = (value or "").startswith(("#", "data:"))
            if name in ("src", "href", "xlink:href", "srcset", "action") and not inside:
                self.fetched.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def federated(strategy: str, seed: int, accuracies: list[float], **settings: Any) -> dict[str, Any]:
    rounds = [
        {"round": number, "accuracy": accuracy, "bytes_up": 1000 * number, "bytes_down": 2000 * number}
        for number, accuracy in enumerate(accuracies)
    ]
    metrics = {
        "accuracy": accuracies[-1],
        "rounds": rounds,
        "rejections": [],
        "bytes_up": rounds[-1]["bytes_up"],
        "bytes_down": rounds[-1]["bytes_down"],
    }
    return make_record("federated", {"strategy": strategy, "seed": seed, "data": "digits", **settings}, metrics, 1.0)


def continual(strategy: str, matrix: list[list[float]]) -> dict[str, Any]:
    metrics = {
        "matrix": matrix,
        "average_accuracy": sum(matrix[-1]) / len(matrix[-1]),
        "forgetting": 0.25,
        "memory_bytes": [500] * len(matrix),
        "replayed": 10,
    }
    return make_record("continual", {"strategy": strategy, "seed": 0, "data": HOSTILE}, metrics, 1.0)


def distilled(method: str) -> dict[str, Any]:
    metrics = {
        "accuracy": 0.5,
        "accuracies": [0.4, 0.6],
        "accuracy_std": 0.1,
        "protocol": "fast",
        "architecture": "mlp",
        "payload_bytes": 976,
        "steps": 5,
        "distil_seconds": 1.0,
        "class_names": [HOSTILE],
        "files": {"picture": "../../etc/passwd"},
    }
    return make_record("distil", {"method": method, "seed": 0, "data": "digits"}, metrics, 1.0)


def page_of(records: list[dict[str, Any]], folder: Path) -> Page:
    results = folder / "results.jsonl"
    results.touch()
    for record in records:
        append_record(results, record)
    return Page(write_report(results, folder / "report.html").read_text())


EVERYTHING = [
    federated("one-shot", 0, [0.1, 0.8], method="dm"),
    federated("one-shot", 1, [0.1, 0.9], method="dm"),
    federated("fedavg", 0, [0.1, 0.5, 0.7]),
    continual("naive", [[1.0, 0.0], [0.0, 1.0]]),
    continual("distilled", [[1.0, 0.0], [0.5, 1.0]]),
    distilled("dm"),
]


def test_everything_is_on_one_page_that_fetches_nothing(tmp_path: Path) -> None:
    page = page_of(EVERYTHING, tmp_path)
    assert page.fetched == []
    assert page.tags.count("svg") >= 4
    for words in ("Federated", "Continual", "Distillation", "85.0", "one-shot", "fedavg", "naive"):
        assert words in page.text, words


def test_nothing_from_results_becomes_markup(tmp_path: Path) -> None:
    page = page_of(EVERYTHING, tmp_path)
    assert "script" not in page.tags
    assert "root:" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("kept", [[0], [3], [5], []])
def test_any_part_may_be_absent(kept: list[int], tmp_path: Path) -> None:
    page = page_of([EVERYTHING[position] for position in kept], tmp_path)
    assert "html" in page.tags
    assert page.text.strip()


def test_torn_lines_are_told(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"kind": "distil", "ke\n')
    page = page_of([EVERYTHING[5]], tmp_path)
    assert "line" in page.text


@pytest.mark.parametrize("name", [r"$\frac{1}{$", "a $ b $ c", "x_\ud800"])
def test_mathematics_and_broken_characters_in_names_are_only_texts(name: str, tmp_path: Path) -> None:
    records = [federated(name, seed, [0.1, 0.5]) for seed in (0, 1)] + [distilled(name)]
    page = page_of(records, tmp_path)
    assert name.encode(errors="replace").decode() in page.text


def test_markup_in_a_path_is_shown_as_it_is_on_a_terminal() -> None:
    console = Console(force_terminal=True, width=80, file=io.StringIO())
    watcher = RichWatcher(console)
    with watcher.stage("data/[/red]/[link=x]") as stage:
        stage.update(0.5, "[/bold]")
        watcher.note("could not read [/red]")
    assert "[/red]" in console.file.getvalue()  # type: ignore[attr-defined]
