"""Planted laws are found, every point is measured once, and the drawing is a file that stands alone."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fedcl_distill.errors import DataError, SettingsError
from simulations.cli import app
from simulations.dev.scaling import (
    DM_STEP,
    EPOCH,
    ROUND,
    WORKS,
    Point,
    ScalingSettings,
    axes_of,
    fit_power_law,
    laws,
    measure,
    random_images,
    sizes_of,
)
from simulations.running.runs import make_record, read_records

TINY = ScalingSettings(
    images_per_class=(1, 2), classes=(2, 3), size=(8,), width=(4, 8), clients=(1, 2), real_batch_per_class=3
)
exponents = st.floats(-3, 3)


@given(factor=st.floats(1e-6, 1e3), p=exponents, q=exponents)
def test_a_planted_law_is_found(factor, p, q):
    sizes = [{"a": a, "b": b, "same": 7.0} for a in (1.0, 2.0, 9.0) for b in (3.0, 5.0)]
    law = fit_power_law(sizes, [factor * one["a"] ** p * one["b"] ** q for one in sizes])
    assert law.factor == pytest.approx(factor)
    assert law.exponents == pytest.approx({"a": p, "b": q}, abs=1e-9)
    assert law.max_error < 1e-9
    assert law({"a": 4.0, "b": 2.0, "same": 1.0}) == pytest.approx(factor * 4**p * 2**q)


def test_largest_error_is_of_the_worst_value():
    law = fit_power_law([{"a": a} for a in (1.0, 2.0, 4.0)], [1.0, 4.0, 4.0])
    assert law.exponents["a"] == pytest.approx(1)
    assert law.max_error == pytest.approx(1 - 2 ** (4 / 3) / 4)


@pytest.mark.parametrize(
    ("sizes", "values"),
    [
        ([], []),
        ([{"a": 1.0}, {"a": 2.0}], [1.0]),
        ([{"a": 1.0, "b": 2.0}, {"a": 2.0, "b": 3.0}], [1.0, 2.0]),
        ([{"a": 1.0}, {"a": 2.0}, {"a": 3.0}], [1.0, 0.0, 2.0]),
        ([{"a": 1.0}, {"a": 2.0}, {"a": 3.0}], [1.0, float("nan"), 2.0]),
        ([{"a": float(k), "b": float(k)} for k in (1, 2, 3, 4)], [1.0, 2.0, 3.0, 4.0]),
    ],
)
def test_what_gives_no_law_is_refused(sizes, values):
    with pytest.raises(DataError):
        fit_power_law(sizes, values)


def test_points_follow_one_axis_at_a_time_and_come_once():
    points = list(ScalingSettings().points())
    assert len(points) == len(set(points))
    for point in points:
        middle = ScalingSettings().middle(point.work).as_record()
        apart = {axis for axis, value in point.as_record().items() if value != middle[axis]}
        assert len(apart) <= 1
        assert apart <= set(axes_of(point.work))
    assert {one.images_per_class for one in points if one.work == DM_STEP} == {1, 2, 5, 10, 20, 50}
    assert {one.clients for one in points if one.work == ROUND} == {10, 100, 1000}


@pytest.mark.parametrize("wrong", [{"works": ("sleep",)}, {"classes": ()}, {"size": (0, 8)}, {"threads": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(SettingsError):
        ScalingSettings(**wrong)


def test_every_client_and_class_gets_its_images():
    point = replace(TINY.middle(ROUND), clients=5, images_per_class=3)
    data = random_images(point)
    assert data.class_counts.tolist() == [15, 15]
    assert data.sample_shape == (3, 8, 8)
    assert random_images(replace(TINY.middle(EPOCH), real_batch_per_class=40)).class_counts.min() == 40


def test_a_law_goes_by_what_a_step_passes_through_the_network():
    def taken(work, **sizes):
        point = replace(TINY.middle(work), **sizes)
        found = sizes_of(point)
        seconds = 1e-5 * found["classes"] * found["images"] * found["width"] ** 1.5
        return make_record("scaling", point.as_record(), {"cpu_seconds": [seconds], "peak_bytes": None}, 0.0)

    axes = {"classes": (2, 5), "images_per_class": (1, 3, 9), "width": (8, 64)}
    records = [taken(work, **{axis: v}) for work in (DM_STEP, EPOCH) for axis, vs in axes.items() for v in vs]
    found = laws(records)
    for work in (DM_STEP, EPOCH):
        assert found[work].exponents == pytest.approx({"classes": 1, "images": 1, "width": 1.5})
    assert "images^1.00" in str(found[EPOCH])


def test_command_measures_draws_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    asked = []

    def here(work, given, threads):
        asked.append(Point(**given))
        return measure(**given)

    monkeypatch.setattr("simulations.dev.scaling.in_fresh_process", here)
    flags = ["--images-per-class", "1,2", "--classes", "2,3", "--size", "8", "--width", "4,8", "--clients", "1,2"]
    flags += ["--real-batch-per-class", "3", "--out", str(tmp_path)]
    first = CliRunner().invoke(app, ["scaling", *flags, "--works", f"{DM_STEP},{ROUND}"])
    assert first.exit_code == 0, first.output
    assert asked == [one for one in TINY.points() if one.work != EPOCH]
    assert all(one["metrics"]["cpu_seconds"][0] > 0 for one in read_records(tmp_path / "results.jsonl"))
    said = CliRunner().invoke(app, ["scaling", *flags])
    assert said.exit_code == 0, said.output
    assert len(asked) == len(set(asked)) == len(list(TINY.points()))
    assert all(work in said.output for work in WORKS)
    drawing = ET.fromstring((tmp_path / "scaling.svg").read_text())
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    (colours,) = (one for one in drawing.iter("{http://www.w3.org/2000/svg}style") if "--series-0" in (one.text or ""))
    assert "prefers-color-scheme" in colours.text
    texts = {one.text for one in drawing.iter("{http://www.w3.org/2000/svg}text")}
    assert {"classes", "clients", "CPU-seconds", *WORKS} <= texts
