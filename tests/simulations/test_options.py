"""Settings from flags and TOML files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from fedcl_distill.errors import SettingsError
from fedcl_distill.settings import Known, Range
from simulations.commands.fields import settings_of
from simulations.commands.options import read_cells, takes_settings
from simulations.data import DataOptions, read_data, with_options
from simulations.scenarios.distil import DistilSettings
from simulations.settings import FederatedSettings


@dataclass(frozen=True)
class Example:
    """Some settings.

    Attributes:
        name: what it is called, and
            where it is :class:`known`.
        count, limit: how many, in [0, 9].
        rate: in steps a second.
        speed: one of two.
        sizes: of the layers.
        quick: or thorough.
        shape: of it.
        method: chosen.
        method_settings: of the method.
    """

    name: str
    count: int = 1
    limit: Annotated[int, Range(le=9)] | None = None
    rate: float = 0.5
    speed: Literal["slow", "fast"] = "fast"
    sizes: tuple[int, ...] = (3, 4)
    quick: bool = False
    shape: Annotated[str, Known("shape", lambda: ("round", "square"))] = "round"
    method: str = "a"
    method_settings: Mapping[str, Any] = field(default_factory=dict)


def _cells(tmp_path, toml=None, **flags):
    file = None
    if toml is not None:
        file = tmp_path / "settings.toml"
        file.write_text(toml)
    return read_cells(Example, file, flags)


def test_fields_are_named_typed_and_explained():
    settings = settings_of(Example)
    assert settings["name"].help == "What it is called, and where it is known."
    assert settings["name"].required
    assert settings["count"].help == settings["limit"].help == "How many, in [0, 9]."
    assert (settings["limit"].metavar, settings["limit"].range) == ("INT", "at most 9")
    assert settings["speed"].choices == ("slow", "fast")
    assert (settings["sizes"].shape, settings["sizes"].default) == ("list", (3, 4))
    assert settings["method_settings"].shape == "table"


def test_several_values_make_every_combination(tmp_path):
    cells = _cells(tmp_path, name=["x"], count=["1", "2"], rate=["0.1", "0.2"])
    assert [(one.count, one.rate) for one in cells] == [(1, 0.1), (1, 0.2), (2, 0.1), (2, 0.2)]
    assert cells[0].limit is None


def test_flags_go_before_the_file(tmp_path):
    toml = 'name = "file"\ncount = [5, 6]\nrate = 1\nsizes = [7, 8]'
    cells = _cells(tmp_path, toml, count=["9"])
    assert cells == [Example("file", count=9, rate=1.0, sizes=(7, 8))]


def test_tables_of_runs_stand_on_what_the_file_says(tmp_path):
    toml = 'name = "x"\ncount = 3\n[[run]]\nspeed = ["slow", "fast"]\n[[run]]\ncount = 4\n[[run]]\ncount = 4'
    cells = _cells(tmp_path, toml)
    assert [(one.count, one.speed) for one in cells] == [(3, "slow"), (3, "fast"), (4, "fast")]


def test_settings_that_go_together_are_not_combined(tmp_path):
    toml = 'name = "x"\ntogether = ["count", "limit"]\ncount = [1, 2]\nlimit = [7, 8]\nspeed = ["slow", "fast"]'
    cells = _cells(tmp_path, toml)
    assert [(one.speed, one.count, one.limit) for one in cells] == [
        ("slow", 1, 7),
        ("slow", 2, 8),
        ("fast", 1, 7),
        ("fast", 2, 8),
    ]
    assert [(one.count, one.limit) for one in _cells(tmp_path, toml, count=["5"], limit=["6"], speed=["slow"])] == [
        (5, 6)
    ]
    own = 'name = "x"\n[[run]]\ncount = [1, 2]\n[[run]]\ntogether = ["count"]\ncount = [3, 4]'
    assert [one.count for one in _cells(tmp_path, own)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("toml", "fragments"),
    [
        ('name = "x"\ntogether = "count"', ["'together' must be a list of settings, got 'count'"]),
        ('name = "x"\ntogether = ["many"]', ["unknown setting 'many'", "in 'together'"]),
        (
            'name = "x"\ntogether = ["count", "limit"]\ncount = [1, 2]\nlimit = 3',
            ["as many values each: count has 2, limit has 1"],
        ),
        ('name = "x"\ncount = "two"', ["count must be a whole number, got 'two'"]),
        ('name = "x"\ncount = true', ["count must be a whole number"]),
        ('name = "x"\ncuont = 1', ["unknown setting 'cuont'; did you mean 'count'?"]),
        ('name = "x"\nlimit = 10', ["settings.toml: limit must be a whole number at most 9, got 10"]),
        ('name = "x"\nspeed = "warp"', ["speed must be one of 'slow', 'fast'"]),
        ('name = "x"\nsizes = ["a"]', ["sizes must be a sequence of a whole number"]),
        ('name = "x"\ncount = []', ["count has no value"]),
        ('name = "x"\nrun = 3', ["[[run]]"]),
        ("count = 1", ["--name must be given"]),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, toml, fragments):
    with pytest.raises(SettingsError) as error:
        _cells(tmp_path, toml)
    assert all(fragment in str(error.value) for fragment in fragments)


def test_method_settings_may_be_for_one_method(tmp_path):
    flags = {"name": ["x"], "method": ["a", "b"], "method_settings": ["a.rate=0.5", "clamp=true", "start=noise"]}
    first, second = _cells(tmp_path, **flags)
    assert first.method_settings == {"rate": 0.5, "clamp": True, "start": "noise"}
    assert second.method_settings == {"clamp": True, "start": "noise"}
    toml = 'name = "x"\nmethod = ["a", "b"]\n[method_settings]\nclamp = true\n[method_settings.b]\nrate = 2'
    first, second = _cells(tmp_path, toml)
    assert (first.method_settings, second.method_settings) == ({"clamp": True}, {"clamp": True, "rate": 2})


def test_flags_are_laid_over_the_method_settings_of_a_file(tmp_path):
    toml = 'name = "x"\nmethod = ["a", "b"]\n[method_settings]\nrate = 1\nclamp = true\n[method_settings.a]\nrate = 2'
    first, second = _cells(tmp_path, toml, method_settings=["a.rate=3"])
    assert (first.method_settings, second.method_settings) == ({"rate": 3, "clamp": True}, {"rate": 1, "clamp": True})
    first, second = _cells(tmp_path, toml, method_settings=["rate=3", "start=noise"])
    assert first.method_settings == second.method_settings == {"rate": 3, "clamp": True, "start": "noise"}
    several = 'name = "x"\nmethod = "a"\nmethod_settings = [{ rate = 1 }, { rate = 2 }]'
    cells = _cells(tmp_path, several, method_settings=["clamp=true"])
    assert [one.method_settings for one in cells] == [{"rate": 1, "clamp": True}, {"rate": 2, "clamp": True}]


def test_settings_of_a_method_may_stand_behind_its_name(tmp_path):
    cells = _cells(tmp_path, name=["x"], method=["a:rate=2,part=[b:size=1]", "c"], method_settings=["rate=1"])
    assert [one.method for one in cells] == ["a", "c"]
    assert [one.method_settings for one in cells] == [{"rate": 2, "part": {"name": "b", "size": 1}}, {"rate": 1}]


def test_names_and_numbers_may_be_separated_by_commas(tmp_path):
    cells = _cells(tmp_path, name=["x"], method=["a,b"], count=["1,2", "3"], speed=["slow"])
    assert [(one.method, one.count) for one in cells] == [(m, c) for m in "ab" for c in (1, 2, 3)]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"limit": ["10"]}, "--limit must be a whole number at most 9, got 10"),
        ({"limit": ["many"]}, "--limit must be a whole number at most 9, got 'many'"),
        ({"rate": ["fast"]}, "--rate must be a number, got 'fast'"),
        ({"speed": ["warp"]}, "--speed must be one of 'slow', 'fast', got 'warp'"),
        ({"sizes": ["1,a"]}, "--sizes must be a sequence of a whole number, got [1, 'a']"),
        ({"shape": ["sqare"]}, "--shape: unknown shape 'sqare'; did you mean 'square'? known: round, square"),
        ({"method_settings": ["rate"]}, "--method-settings takes key=value, got 'rate'"),
    ],
)
def test_a_wrong_value_names_its_flag_and_what_is_allowed(tmp_path, flags, said):
    with pytest.raises(SettingsError) as error:
        _cells(tmp_path, name=["x"], **flags)
    assert str(error.value) == said


def test_null_stands_for_none(tmp_path):
    assert _cells(tmp_path, 'name = "x"\nlimit = 3', limit=["null"])[0].limit is None


def test_strategy_settings_may_be_for_one_strategy():
    flags = {"strategy": ["topk", "scaffold"], "strategy_settings": ["topk.fraction=0.5", "learning_rate=0.1"]}
    first, second = read_cells(FederatedSettings, None, flags)
    assert first.strategy_settings == {"fraction": 0.5, "learning_rate": 0.1}
    assert second.strategy_settings == {"learning_rate": 0.1}


def test_a_command_gets_a_flag_for_each_field():
    heard = []
    app = typer.Typer()

    @app.command()
    @takes_settings(Example, helps={"rate": "How fast."})
    def command(cells: list[Example], out: str = "here") -> None:
        """Do it."""
        heard.extend([cells, out])

    arguments = ["--name", "x", "--name", "y", "--count", "2", "--sizes", "1,2", "--quick"]
    arguments += ["--method-settings", "k=v", "--out", "there"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    expected = [Example(name, 2, sizes=(1, 2), quick=True, method_settings={"k": "v"}) for name in "xy"]
    assert heard == [expected, "there"]
    text = " ".join(CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output.split())
    assert "How many, in [0, 9]. (default: 1)" in text
    assert "How many, in [0, 9]. (at most 9)" in text
    assert "How fast. (default: 0.5)" in text
    assert "slow|fast" in text


@dataclass(frozen=True)
class Budgeted:
    """Settings of a distillation.

    Attributes:
        method: by which.

        distil_steps, distil_seconds: the method's own where both are None.
        hidden_away: what few need; None for nothing, and no part of :meth:`as_record`.
    """

    method: str = "a"
    distil_steps: int | None = None
    distil_seconds: float | None = None
    hidden_away: int | None = None


@pytest.fixture
def budgeted() -> tuple[typer.Typer, list[Budgeted]]:
    heard: list[Budgeted] = []
    app = typer.Typer()

    @app.command()
    @takes_settings(Budgeted, main=("method", "distil_steps"), steps=200)
    def command(cells: list[Budgeted]) -> None:
        """Do it."""
        heard.extend(cells)

    return app, heard


@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        ([], 200),
        (["--distil-steps", "7"], 7),
        (["--distil-seconds", "3"], None),
        (["--distil-steps", "null"], None),
        (["--settings", "some.toml"], None),
    ],
)
def test_steps_are_few_unless_a_budget_or_a_file_is_given(budgeted, tmp_path, monkeypatch, flags, steps):
    (tmp_path / "some.toml").write_text('method = "b"')
    monkeypatch.chdir(tmp_path)
    app, heard = budgeted
    assert CliRunner().invoke(app, flags).exit_code == 0
    assert [one.distil_steps for one in heard] == [steps]


def test_help_is_short_and_has_no_words_of_python(budgeted):
    app, _ = budgeted
    short, long = (
        " ".join(CliRunner().invoke(app, [flag], env={"COLUMNS": "200"}).output.split())
        for flag in ("--help", "--help-all")
    )
    assert "200 unless seconds are given" in short
    assert "--hidden-away" not in short
    assert "--hidden-away" in long
    assert "where both are not given" in long
    assert "by default nothing, and no part of a result's settings" in long
    assert "None" not in long
    assert "as_record" not in long


@pytest.mark.parametrize(
    "content",
    [
        "method_settings = " + "[" * 50_000,
        "seed = " + "9" * 5000,
        'method_settings = {a = "' + "\udcff" + '"}',
        f"seed = {list(range(101))}\nimages-per-class = {list(range(1, 101))}",
    ],
    ids=["nested too deep", "a number of too many digits", "no UTF-8", "too many combinations"],
)
def test_files_that_no_run_can_come_from_are_refused(tmp_path, content):
    file = tmp_path / "settings.toml"
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(SettingsError):
        read_cells(DistilSettings, file, {})


def test_how_data_are_read_stands_behind_their_name_or_in_flags_or_in_a_file(tmp_path):
    flags = {"data": ["photos"], "image_size": ["48x64"], "bad_pictures": ["skip"], "allow_hflip": True}
    (cell,) = read_cells(DistilSettings, None, flags)
    place, options = read_data(cell.data)
    assert (place, options.size, options.bad_pictures, options.allow_hflip) == ("photos", (48, 64), "skip", True)
    file = tmp_path / "settings.toml"
    file.write_text('data = "photos:image_size=32"\nbad_pictures = "skip"')
    (told,) = read_cells(FederatedSettings, file, {"image_size": ["48x64"], "allow_hflip": True})
    assert told.data == cell.data
    assert read_cells(DistilSettings, None, {"data": ["digits"]})[0].data == "digits"
    with pytest.raises(SettingsError, match="HEIGHTxWIDTH, got 'big'"):
        read_cells(DistilSettings, None, {"data": ["photos"], "image_size": ["big"]})
    with pytest.raises(SettingsError, match=r"setting 'image_sise'; did you mean 'image_size'"):
        read_data("photos:image_sise=3")


@pytest.mark.parametrize("column", ["kind", "a,b", "x:y=[z]", "2020", '"', "größe", 3, -1])
def test_any_name_of_a_column_comes_through(column):
    options = {"label_column": column, "feature_columns": (column, "other")}
    assert read_data(with_options("table.csv", options))[1] == DataOptions(**options)


def test_a_folder_may_be_called_as_if_options_stood_behind_it(tmp_path):
    odd = tmp_path / "photos:image_size=3"
    odd.mkdir()
    assert read_data(str(odd)) == (str(odd), DataOptions())
    assert read_data("C:\\photos") == ("C:\\photos", DataOptions())
