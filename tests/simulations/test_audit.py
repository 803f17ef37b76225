"""Audits end to end: leaks are found, and nothing is found where nothing leaks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from fedcl_distill.data import LabelledData, Splits
from fedcl_distill.errors import CheckpointError, DataError, PayloadError, SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.privacy import Guarantee, Mechanism
from fedcl_distill.synthetic import SyntheticSet, load, save
from simulations.audit import run as audit_run
from simulations.audit.game import AuditSettings, game_of_record, maker_for, toss_coins
from simulations.audit.run import GradientSettings, audit_saved, run_audit, run_gradients
from simulations.cli import app
from simulations.running.progress import Silent
from simulations.running.runs import Run, append_record, perform, read_records
from simulations.scenarios.saved_sets import SavedSet
from simulations.tables.privacy import audit_tables, gradient_table

_QUICK = AuditSettings(
    candidates=300,
    releases=3,
    method="random",
    images_per_class=6,
    architecture="mlp:width=16",
    attack_epochs=3,
)


@pytest.fixture(scope="module")
def core_set_audit(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    folder = tmp_path_factory.mktemp("audit")
    return perform(Run("audit", _QUICK), Silent(), folder), folder


def test_real_samples_are_found_by_those_who_look_for_them(core_set_audit) -> None:
    """60 of about 150 members are handed on as they are: 40 % of the members, and of no other candidate."""
    record, folder = core_set_audit
    metrics, attack = record["metrics"], record["metrics"]["attacks"]["nearest pixels"]
    assert attack["tpr_at_0.01"]["low"] > 0.25
    assert 0.3 < attack["tpr_at_0.01"]["value"] < 0.6
    assert attack["auc"]["low"] > 0.6
    assert metrics["pure_epsilon_bound"] >= metrics["epsilon_bound"] > 0.5
    assert metrics["near_copies"] == metrics["synthetic_samples"] == 60
    assert metrics["near_copies_of_others"] <= 6
    assert metrics["holds_real_samples"]
    assert metrics["psnr_of_members"] > metrics["psnr_of_others"] + 2
    assert (folder / metrics["files"]["picture"]).read_bytes().startswith(b"\x89PNG")
    assert len(load(folder / metrics["files"]["set"])) == 60
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert not list(folder.glob("*.checkpoint.pt"))


def test_a_release_of_other_data_tells_nothing(tmp_path, monkeypatch, digits: Splits) -> None:
    """The control: the same attacks on sets that no candidate had a part in."""
    method = build_method("random")

    def apart(members, test, seed):
        return method.distil(digits.test, 6, seed=seed)

    monkeypatch.setattr(audit_run, "maker_for", lambda settings: apart)
    metrics = run_audit(_QUICK, out_dir=tmp_path)["metrics"]
    for name, attack in metrics["attacks"].items():
        assert attack["auc"]["low"] < 0.5 < attack["auc"]["high"], name
    assert metrics["pure_epsilon_bound"] == 0
    assert metrics["near_copies"] <= 6


def test_a_model_that_learned_by_heart_is_found_out(tmp_path) -> None:
    federated = {"clients": 1, "rounds": 1, "local_epochs": 60, "partition": "iid"}
    settings = replace(_QUICK, candidates=100, releases=4, strategy="fedavg", federated=federated)
    settings = replace(settings, architecture="mlp:width=64")
    metrics = run_audit(settings, out_dir=tmp_path)["metrics"]
    assert metrics["attacks"]["loss"]["auc"]["value"] > 0.6
    assert metrics["attacks"]["LiRA"]["auc"]["value"] > metrics["attacks"]["loss"]["auc"]["value"]
    assert "nearest pixels" not in metrics["attacks"]
    assert "near_copies" not in metrics


def test_tables_of_numbers_are_attacked_too(tmp_path, monkeypatch) -> None:
    """Of two features the second is a thousand times as large, and noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    samples = torch.stack(
        [labels + 0.3 * torch.randn(400, generator=generator), 1e3 * torch.rand(400, generator=generator)], 1
    )
    data = LabelledData.from_tensors(samples, labels)
    splits = Splits(data.subset(torch.arange(300)), data.subset(torch.arange(300, 400)))
    monkeypatch.setattr("simulations.audit.game.load_splits", lambda *given, **named: splits)
    metrics = run_audit(replace(_QUICK, images_per_class=30), out_dir=tmp_path)["metrics"]
    assert metrics["near_copies"] >= 55 > 20 > metrics["near_copies_of_others"]
    assert metrics["attacks"]["nearest pixels"]["auc"]["low"] > 0.55
    assert "psnr_of_members" not in metrics


def test_a_federated_union_is_attacked_as_a_set() -> None:
    federated = {"clients": 2, "partition": "iid", "protocol": "quick"}
    settings = replace(_QUICK, strategy="one-shot", images_per_class=1, federated=federated)
    game = toss_coins("digits", None, 300, 1, 0)
    release = maker_for(settings)(game.data_of(0), game.test, 0)
    assert isinstance(release, SyntheticSet)
    assert len(release) == 20


def test_an_interrupted_audit_goes_on_where_it_stopped(core_set_audit, tmp_path, monkeypatch) -> None:
    made: list[int] = []
    whole = maker_for(_QUICK)

    def interrupted(settings: AuditSettings):
        def make(members, test, seed):
            if len(made) == 2:
                raise KeyboardInterrupt
            made.append(seed)
            return whole(members, test, seed)

        return make

    with monkeypatch.context() as patched:
        patched.setattr(audit_run, "maker_for", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_audit(_QUICK, out_dir=tmp_path)
    (kept,) = tmp_path.glob("*.checkpoint.pt")
    monkeypatch.setattr(audit_run, "maker_for", lambda settings: lambda *given: made.append(given[2]) or whole(*given))
    record = run_audit(_QUICK, out_dir=tmp_path)
    assert len(set(made)) == len(made) == 3
    assert record["metrics"] == core_set_audit[0]["metrics"]
    kept.write_bytes(b"damaged")
    with pytest.raises(CheckpointError):
        run_audit(_QUICK, out_dir=tmp_path)


def test_coins_are_fair_and_independent() -> None:
    game = toss_coins("digits", None, 1000, 6, seed=3)
    assert game.fair
    assert game.members.shape == (6, 1000)
    assert (game.members.double().mean(dim=1) - 0.5).abs().max() < 0.06
    assert (torch.corrcoef(game.members.double()) - torch.eye(6)).abs().max() < 0.15
    assert len(game.data_of(0)) + len(game.others_of(0)) == 1000
    assert not torch.equal(game.members, toss_coins("digits", None, 1000, 6, seed=4).members)


@pytest.fixture
def saved(tmp_path: Path, digits: Splits) -> tuple[Path, torch.Tensor]:
    """A core set of every third training sample."""
    members = torch.arange(0, len(digits.train), 3)
    synthetic = build_method("random").distil(digits.train.subset(members), 6, seed=0)
    save(synthetic, tmp_path / "core.safetensors")
    return tmp_path / "core.safetensors", members


def test_a_saved_set_is_attacked_with_its_members_on_record(saved, tmp_path) -> None:
    path, members = saved
    metrics = audit_saved(SavedSet.read(path), _QUICK, members, out_dir=tmp_path)["metrics"]
    assert metrics["members"] == len(members)
    assert metrics["near_copies"] == 60
    assert metrics["epsilon_bounds"] is None  # nobody tossed coins
    assert metrics["attacks"]["nearest pixels"]["tpr_at_0.01"]["value"] > 0.1
    assert "LiRA" not in metrics["attacks"]


def test_without_a_record_test_samples_are_the_others(digits: Splits) -> None:
    game = game_of_record(digits, None, 0)
    assert not game.fair
    assert game.members.sum() * 2 == len(game.candidates) == 2 * (len(digits.test) // 2)
    assert len(game.references) == len(digits.test) - len(digits.test) // 2
    seen = {row.numpy().tobytes() for row in game.references.samples}
    assert not any(row.numpy().tobytes() in seen for row in game.others_of(0).samples)


def test_the_command_audits_and_shows(saved, tmp_path) -> None:
    path, members = saved
    record = tmp_path / "members.txt"
    record.write_text("\n".join(map(str, members.tolist())))
    arguments = ["audit", str(path), "--members", str(record), "--architecture", "mlp:width=16", "--attack-epochs", "2"]
    for _ in range(2):
        result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path), "--markdown", str(tmp_path / "t.md")])
        assert result.exit_code == 0, result.output
    assert len(list(read_records(tmp_path / "results.jsonl"))) == 1
    page = (tmp_path / "t.md").read_text()
    assert "saved (random) †" in page
    assert "60 of 60" in page
    assert "<svg" in (tmp_path / "audits" / "roc-1.svg").read_text()


def test_tables_tell_arms_apart_and_show_claims(core_set_audit) -> None:
    record = core_set_audit[0]
    private = {**record, "key": "other", "settings": {**record["settings"], "method": "dm"}}
    private["metrics"] = {**record["metrics"], "claimed": {"epsilon": 4.0, "delta": 1e-5}}
    overview, areas, finds = audit_tables([record, private])
    assert [row[0] for row in overview.rows] == ["random †", "dm"]
    assert [row[6] for row in overview.rows] == ["–", "4"]
    assert areas.columns[1:] == finds.columns[1:]
    assert "nearest pixels" in areas.columns


def test_a_claim_is_read_unless_its_noise_is_known() -> None:
    synthetic = SyntheticSet.of_real(toss_coins("digits", None, 50, 1, 0).candidates)
    claims = [Guarantee(2.0, 1e-6, Mechanism(3.0), 1.0, "a theorem", seeded=seeded) for seeded in (False, True)]
    provenances = [{"privacy": claim.as_record()} for claim in claims]
    read = [audit_run._claim(replace(synthetic, provenance=one)) for one in [*provenances, {}]]
    assert read == [{"epsilon": 2.0, "delta": 1e-6}, None, None]
    with pytest.raises(PayloadError):
        audit_run._claim(replace(synthetic, provenance={"privacy": {"epsilon": "2"}}))


def test_gradients_tell_more_than_a_set(core_set_audit, tmp_path) -> None:
    settings = GradientSettings(batch=2, batches=1, steps=400)
    record = run_gradients(settings, folder=tmp_path)
    assert min(record["metrics"]["psnr"]) > 25
    assert (tmp_path / record["metrics"]["files"]["picture"]).exists()
    append_record(tmp_path / "r.jsonl", record)
    table = gradient_table([record], [core_set_audit[0]])
    assert [row[0] for row in table.rows] == ["gradient of 2 samples · digits", "nearest sample of random † · digits"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"candidates": 1},
        {"bits": 7},
        {"delta": 1.0},
        {"confidence": 0.0},
        {"method": "magic"},
        {"architecture": "transformer"},
        {"federated": {"clients": 4}},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong) -> None:
    with pytest.raises(SettingsError):
        replace(_QUICK, **wrong)


@pytest.mark.parametrize(
    "wrong", [{"strategy": "magic"}, {"federated": {"method": "dm"}}, {"federated": {"clients": 0}}]
)
def test_federated_settings_that_cannot_work_are_refused(wrong) -> None:
    with pytest.raises(SettingsError):
        maker_for(replace(_QUICK, **{"strategy": "fedavg", **wrong}))


def test_what_does_not_fit_is_refused(saved, tmp_path, digits: Splits) -> None:
    for positions in ([-1], [10**9], []):
        with pytest.raises(DataError):
            game_of_record(digits, torch.tensor(positions, dtype=torch.int64), 0)
    (tmp_path / "bad.txt").write_text("1\ntwo")
    result = CliRunner().invoke(app, ["audit", str(saved[0]), "--members", str(tmp_path / "bad.txt")])
    assert result.exit_code == 2
    assert "whole numbers" in result.output
    with pytest.raises(SettingsError):
        GradientSettings(batch=7)
