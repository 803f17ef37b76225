"""The report in detail: well-formed, means over seeds, and safe with whatever a results file says."""

from __future__ import annotations

from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from fedcl_distill.synthetic.export import encode_png
from simulations.report import write_drawings, write_report
from simulations.report.drawing import look
from simulations.running.runs import append_record, make_record
from simulations.tables.variants import SIZES, forgotten, scenarios, seen_so_far, series_along

_HOSTILE = "<script>alert(1)</script><img src=http://x.test/y.png>"
_VOID = {"meta", "img", "br", "hr", "link", "input"}


class _Page(HTMLParser):
    """What a browser would see: text, tags, ids, and everything that it would fetch."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.open, self.text = [], [], [], [], ""
        self.feed(text)
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attributes):
        self._note(tag, attributes)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self._note(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def _note(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
                self.links.append(value)


def _federated(strategy, seed, rounds, **changes):
    done = [
        {"round": i, "accuracy": 0.1 + 0.8 * i / rounds, "bytes_up": 1000 * i, "bytes_down": 900 * i}
        for i in range(rounds + 1)
    ]
    settings = {
        "strategy": strategy,
        "seed": seed,
        "data": "digits",
        "clients": 4,
        "partition": "iid",
        "method": "random",
    }
    metrics = {
        **done[-1],
        "accuracy": 0.9 - 0.01 * seed,
        "rounds": done,
        "rejections": [],
        "synthetic_samples": 40 if strategy == "one-shot" else None,
    }
    return make_record("federated", {**settings, "rounds": rounds, **changes}, metrics, 2.0)


def _continual(strategy, seed):
    matrix = [[0.9, 0.0, 0.0], [0.5, 0.8, 0.0], [0.3 + 0.1 * seed, 0.4, 0.7]]
    metrics = {
        "matrix": matrix[-1:] if strategy == "joint" else matrix,
        "average_accuracy": sum(matrix[-1]) / 3,
        "forgetting": 0.5,
        "memory_bytes": [100, 200, 300],
    }
    return make_record(
        "continual", {"strategy": strategy, "seed": seed, "data": "digits", "experiences": 3}, metrics, 1.0
    )


def _distil(method, size, **metrics):
    settings = {"method": method, "images_per_class": size, "data": "digits", "protocol": "fast", "bits": 8, "seed": 0}
    measured = {"accuracies": [0.8, 0.9], "payload_bytes": 700 * size, "protocol": "fast", "architecture": "convnet"}
    return make_record("distil", settings, {**measured, **metrics}, 3.0)


def _everything():
    yield from (_federated("one-shot", seed, 1) for seed in (0, 1))
    yield from (_federated("fedavg", seed, 5) for seed in (0, 1))
    yield from (_continual(strategy, seed) for strategy in ("naive", "reservoir", "joint") for seed in (0, 1))
    yield from (_distil(method, size) for method in ("dm", "random") for size in (1, 10))


def _write(tmp_path, records):
    results = tmp_path / "results.jsonl"
    results.touch()
    for record in records:
        append_record(results, record)
    text = write_report(results, tmp_path / "report.html").read_text()
    return text, _Page(text)


def test_the_page_is_whole_and_needs_no_other_file(tmp_path):
    text, page = _write(tmp_path, _everything())
    assert {"federated", "continual", "distil", "runs"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "@import" not in text
    assert "url(http" not in text
    assert page.tags.count("svg") == 6
    for title in (
        "Accuracy against bytes",
        "Accuracy over rounds",
        "Average accuracy on what was seen so far",
        "Forgetting of each experience",
        "Accuracy matrix",
        "Accuracy against payload",
        "What was run",
    ):
        assert title in page.text


def test_numbers_are_means_over_seeds_with_their_deviation(tmp_path):
    _, page = _write(tmp_path, _everything())
    assert "89.5 ± 0.7" in page.text
    assert "1.00 kB" in page.text
    assert "one-shot (random) †" in page.text
    assert "not private" in page.text


def test_colours_follow_the_pages_theme(tmp_path):
    text, _ = _write(tmp_path, _everything())
    assert "var(--series-0)" in text
    assert "#0a0a0" not in text
    assert "prefers-color-scheme: dark" in text


def test_a_file_without_results_is_told(tmp_path):
    _, page = _write(tmp_path, [])
    assert "No results yet" in page.text


def test_what_results_say_is_text_and_never_markup(tmp_path):
    hostile = [
        _federated(_HOSTILE, 0, 2, data=_HOSTILE, partition=_HOSTILE),
        _distil(_HOSTILE, 1, class_names=[_HOSTILE], architecture=_HOSTILE),
        _distil(_HOSTILE, 2),
        {
            **_continual(_HOSTILE, 0),
            "environment": {"processor": _HOSTILE, "versions": {_HOSTILE: _HOSTILE}},
            "time": _HOSTILE,
        },
    ]
    text, page = _write(tmp_path, hostile)
    assert not {"script"} & set(page.tags)
    assert all(not link.startswith("http") for link in page.links)
    assert "<script" not in text
    assert _HOSTILE in page.text


@pytest.mark.parametrize(
    "metrics",
    [
        {},
        {"rounds": 3, "matrix": 3, "accuracies": 3, "files": 3, "rejections": 3},
        {"rounds": [None, {}, {"round": "x"}], "matrix": [[1], [1, 2]], "accuracy": "high", "accuracies": ["x", None]},
        {"matrix": [[]], "accuracy": float("nan"), "memory_bytes": ["x"], "payload_bytes": -1},
        {"matrix": [[float("nan"), 1.0], [0.5, 0.5]], "rounds": [{"round": 0, "accuracy": 0.1, "bytes_up": 0}]},
    ],
)
@pytest.mark.parametrize("kind", ["federated", "continual", "distil"])
def test_incomplete_metrics_leave_gaps(tmp_path, kind, metrics):
    _, page = _write(tmp_path, [make_record(kind, {"seed": None}, metrics, 0.0)])
    assert kind in page.ids


def test_pictures_come_from_below_the_results_only(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    png = encode_png(np.zeros((4, 6, 3), dtype=np.uint8))
    for place in (folder / "inside.png", tmp_path / "outside.png"):
        place.write_bytes(png)
    (folder / "secret.png").write_text("no picture")
    names = ["inside.png", "../outside.png", str(tmp_path / "outside.png"), "secret.png", "absent.png", 7, "\0"]
    records = [_distil(f"method {i}", 1, files={"picture": name}) for i, name in enumerate(names)]
    _, page = _write(folder, records)
    assert page.tags.count("img") == 1
    assert 'width="6"' in (folder / "report.html").read_text()


def test_a_repeated_key_counts_once_and_the_later_result_holds(tmp_path):
    first, second = _distil("dm", 1), _distil("dm", 1, accuracies=[0.123])
    _, page = _write(tmp_path, [first, second])
    assert "12.3" in page.text
    assert "85.0" not in page.text


def test_matrices_give_the_fields_numbers():
    matrix = [[0.9, 0.0, 0.0], [0.5, 0.8, 0.0], [0.3, 0.4, 0.7]]
    assert seen_so_far(matrix) == pytest.approx([0.9, 0.65, 1.4 / 3])
    assert forgotten(matrix) == pytest.approx([0.6, 0.4])


def test_accuracy_stands_against_cpu_time_where_distillation_cost_some(tmp_path):
    (tmp_path / "free").mkdir()
    free = [_distil("random", 1, distil_cpu_seconds=0.001), _distil("dm", 1, distil_cpu_seconds=600.0)]
    _, page = _write(tmp_path / "free", free)
    assert "Accuracy against CPU time" not in page.text
    _, page = _write(tmp_path, [*free, _distil("mtt", 1, distil_cpu_seconds=1200.0)])
    assert "Accuracy against CPU time" in page.text
    assert "10 min 00 s" in page.text or "8 min 20 s" in page.text


def test_bytes_kept_are_drawn_where_two_arms_keep_some(tmp_path):
    title = "Average accuracy against bytes kept"
    _, page = _write(tmp_path, [_continual(strategy, 0) for strategy in ("reservoir", "herding")])
    assert title in page.text
    alone = _continual("naive", 0)
    alone["metrics"]["memory_bytes"] = [0, 0, 0]
    (tmp_path / "other").mkdir()
    _, page = _write(tmp_path / "other", [_continual("reservoir", 0), alone])
    assert title not in page.text


def test_accuracy_stands_against_seconds_where_one_size_has_several_budgets(tmp_path):
    title = "Average accuracy against seconds of distilling, 10 images per class"
    budgets = [_costly("distilled", 10, steps, seconds) for steps, seconds in ((0, 0.5), (100, 40.0))]
    baseline = _costly("herding", 10, None, 2.0)
    _, page = _write(tmp_path, [*budgets, baseline])
    assert title in page.text
    assert "herding: 2.0 s" in page.text
    (tmp_path / "one").mkdir()
    _, page = _write(tmp_path / "one", [budgets[0], baseline])
    assert "against seconds" not in page.text


def test_plots_are_also_files_of_their_own(tmp_path):
    results = tmp_path / "results.jsonl"
    for record in _everything():
        append_record(results, record)
    written = write_drawings([results], tmp_path / "drawings")
    assert "continual-1-forgetting-of-each-experience.svg" in {path.name for path in written}
    for path in written:
        assert ElementTree.fromstring(path.read_text()).tag.endswith("svg")


def test_sizes_are_one_line_and_so_are_orders_of_classes(tmp_path):
    records = [_costly("distilled", size, 100, 40.0 * size, order_seed=order) for size in (1, 10) for order in (0, 1)]
    _, page = _write(tmp_path, records)
    assert page.text.count("Average accuracy against bytes kept") == 2  # as a title, and for screen readers
    (scenario,) = scenarios(records, "continual")
    (line,) = series_along(scenario, SIZES)
    assert [len(variant.records) for variant in line.variants] == [2, 2]
    assert line.label == "distilled (dm)"


def _costly(strategy, size, steps, seconds, order_seed=None):
    record = _continual(strategy, 0)
    own = {"images_per_class": size, "distil_steps": steps, "order_seed": order_seed, "method": "dm"}
    measured = {"memory_cpu_seconds": [seconds] * 3, "memory_bytes": [700 * size] * 3}
    settings, metrics = record["settings"] | own, record["metrics"] | measured
    return make_record("continual", settings, metrics, 1.0)


def test_no_two_of_many_series_look_alike():
    looks = [(one["color"], one["marker"]) for one in map(look, range(40))]
    assert len(set(looks)) == 40
