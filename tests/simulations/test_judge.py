"""Truth: a set written as another project writes it; what stands beside it takes no more bytes."""

from __future__ import annotations

from pathlib import Path

import torch
from typer.testing import CliRunner

from fedcl_distill.data import Splits
from fedcl_distill.synthetic import SyntheticSet, encode, load
from simulations.cli import app
from simulations.running.runs import read_records


def test_the_command_judges_it_beside_real_samples_of_as_many_bytes(tmp_path: Path, digits: Splits) -> None:
    first = torch.cat([digits.train.indices_of(label)[:2] for label in range(10)])
    torch.save([digits.train.inputs()[first], digits.train.labels[first]], tmp_path / "theirs.pt")
    quick = [
        "--protocol",
        "brief",
        "--networks",
        "1",
        "--architecture",
        "mlp:width=16",
        "--out",
        str(tmp_path / "runs"),
    ]
    command = ["judge", str(tmp_path / "theirs.pt"), "--data", "digits", *quick]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    records = list(read_records(tmp_path / "runs" / "results.jsonl"))
    methods = [record["settings"]["method"].split(",")[0] for record in records]
    assert {"theirs", "random", "herding", "random with a teacher's labels"} <= set(methods)
    files = {path.stem: load(path) for path in (tmp_path / "runs" / "judged").rglob("*.safetensors")}
    own = len(encode(SyntheticSet.of_real(digits.train.subset(first)), 8, provenance=False))
    sizes = {name: len(encode(one, 8, provenance=False)) for name, one in files.items()}
    assert max(sizes.values()) <= own + 8
    assert files["random-with-a-teacher's-labels"].labels.is_floating_point()
    assert CliRunner().invoke(app, command).exit_code == 0
    assert len(list(read_records(tmp_path / "runs" / "results.jsonl"))) == len(records)


def test_what_goes_together_is_asked_for_together(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["judge", "x.pt", "--data", "digits", "--mean", "0.5"])
    assert said.exit_code != 0
    assert "mean and std go together" in said.output + str(said.exception)
