"""Truth: what a user types and what comes back: exit code, one line, files."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from fedcl_distill.engine.loop import Loop
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import known_settings
from fedcl_distill.synthetic import load
from simulations.cli import app
from simulations.commands import COMMANDS
from simulations.commands.fields import settings_of
from simulations.commands.options import read_cells
from simulations.running.runs import read_records

QUICK = ["--architecture", "convnet:width=8", "--networks", "1", "--images-per-class", "1", "--distil-steps", "2"]
ROOT = Path(__file__).parent.parent.parent


def call(*arguments: str | Path) -> object:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert "--help" in result.output
    assert len(result.output.splitlines()) > 5


def test_methods_are_listed() -> None:
    result = call("methods")
    assert result.exit_code == 0
    assert all(name in result.output for name in ("dm", "herding", "k-center", "random"))


def test_a_method_is_shown_with_all_its_settings() -> None:
    result = call("methods", "dm")
    assert result.exit_code == 0
    assert all(name in result.output for name in known_settings("dm"))
    assert "Class means of embeddings" in result.output
    assert "256" in result.output
    refused = call("methods", "magic")
    assert refused.exit_code == 2
    assert "unknown method 'magic'" in refused.output


def test_distil_saves_set_picture_and_result_and_skips_what_is_done(tmp_path: Path) -> None:
    arguments = ["distil", "--out", tmp_path, "--method", "random", "--method", "dm", *QUICK]
    arguments += ["--method-settings", "dm.architecture=convnet:width=8"]
    first = call(*arguments)
    assert first.exit_code == 0, first.output
    records = list(read_records(tmp_path / "results.jsonl"))
    assert [record["settings"]["method"] for record in records] == ["random", "dm"]
    for record in records:
        metrics = record["metrics"]
        kept = load(tmp_path / metrics["files"]["set"])
        assert len(kept) == 10
        assert metrics["payload_bytes"] < (tmp_path / metrics["files"]["set"]).stat().st_size  # provenance on disk
        assert (tmp_path / metrics["files"]["picture"]).read_bytes().startswith(b"\x89PNG")
        assert 0 <= metrics["accuracy"] <= 1
    assert call(*arguments).exit_code == 0
    assert len(list(read_records(tmp_path / "results.jsonl"))) == 2

    page = call("report", tmp_path)
    assert page.exit_code == 0
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["distil", "--method", "magic"], "unknown method 'magic'"),
        (["distil", "--bits", "3"], "bits must be"),
        (["distil", "--data", "nothing-here"], "nothing-here"),
        (["distil", "--settings", "absent.toml"], "could not read settings"),
        (["distil", "--method-settings", "temperature=3"], "unknown setting 'temperature'"),
        (["federated", "--strategy", "magic"], "magic"),
        (["federated", "--tune", "rounds"], "has a single value"),
        (["continual", "--strategy", "magic"], "unknown continual strategy"),
        (["report", "nowhere"], "no results at"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], said: str, tmp_path: Path) -> None:
    if arguments[0] != "report":
        arguments = [*arguments, "--out", str(tmp_path)]
    result = call(*arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


def test_what_is_tuned_is_shown_and_run_with_what_was_chosen(tmp_path: Path) -> None:
    given = ["--strategy", "fedavg", "--train-limit", "100", "--architecture", "mlp:width=8", "--local-epochs", "5"]
    rates = ["--local-learning-rate", "1e-6", "--local-learning-rate", "0.1", "--tune", "local-learning-rate"]
    result = call("federated", *given, *rates, "--rounds", "2", "--partition", "iid", "--out", tmp_path)
    assert result.exit_code == 0
    assert "learning" in result.output
    records = list(read_records(tmp_path / "results.jsonl"))
    assert [one["kind"] for one in records] == ["federated-trial"] * 2 + ["federated-tuning", "federated"]
    assert records[-1]["settings"]["local_learning_rate"] == 0.1
    assert "validation_share" not in records[-1]["settings"]


@dataclass(frozen=True)
class Example:
    """Settings.

    Attributes:
        size: of it, in pixels.
        names: of the parts.
        deep: or not.
        extra: more.
    """

    size: int = 3
    names: tuple[str, ...] = ()
    deep: bool = False
    extra: dict[str, object] = field(default_factory=dict)


def test_a_file_gives_settings_and_flags_go_first(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('size = [1, 2]\ndeep = true\nextra = {a = 1, b = "x"}\n')
    cells = read_cells(Example, file, {"size": None, "names": None, "deep": None, "extra": None})
    assert [(one.size, one.deep, one.extra) for one in cells] == [(n, True, {"a": 1, "b": "x"}) for n in (1, 2)]
    assert [one.size for one in read_cells(Example, file, {"size": ["7"]})] == [7]
    assert settings_of(Example)["size"].help == "Of it, in pixels."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sice = 1", "unknown setting 'sice'; did you mean 'size'"),
        ('size = "x"', "whole number"),
        ("= 3", "not valid TOML"),
    ],
)
def test_a_bad_file_is_named(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=said):
        read_cells(Example, file, {})


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import atexit, sys; from simulations.cli import main; sys.argv[1:] = ['--help'];"
        "loaded = lambda: [m for m in ('torch', 'flwr', 'avalanche', 'matplotlib') if m in sys.modules];"
        "atexit.register(lambda: print(loaded())); main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_an_interrupted_distillation_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C in the middle of step 6; the end equals that of an uninterrupted run."""
    arguments = ["distil", "--method-settings", "architecture=convnet:width=8", *QUICK[:-1], "12", "--out"]
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert call(*arguments, whole).exit_code == 0
    step = Loop._step

    def interrupted(loop: Loop, *view: object) -> None:
        if loop.run_.state.step == 5:
            raise KeyboardInterrupt
        step(loop, *view)

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_step", interrupted)
        result = call(*arguments, part)
    assert result.exit_code == 130
    assert "goes on from there" in result.output
    assert not (part / "results.jsonl").exists()
    assert list((part / "checkpoints").iterdir())
    assert call(*arguments, part).exit_code == 0
    sets = [load(next((folder / "sets").glob("*.safetensors"))) for folder in (whole, part)]
    assert torch.equal(sets[0].inputs(), sets[1].inputs())
    assert [one.provenance["steps"] for one in sets] == [12, 12]
    assert not list((part / "checkpoints").iterdir())
