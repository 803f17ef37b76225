"""Truth: the laws of the numbers, and that a key gives them again."""

from __future__ import annotations

import math
import stat
from pathlib import Path

import pytest
import torch

from fedcl_distill.errors import CheckpointError, StorageError
from fedcl_distill.privacy import NoiseSource


def test_normal_values_have_the_moments_and_the_tails_of_their_law() -> None:
    values = NoiseSource.fresh().normal((200_000,), "draw")
    assert values.mean().abs() < 5 / math.sqrt(200_000)
    assert (values.square().mean() - 1).abs() < 5 * math.sqrt(2 / 200_000)
    ordered = values.sort().values
    expected = 0.5 * torch.special.erfc(-ordered / math.sqrt(2))
    found = (torch.arange(200_000) + 0.5) / 200_000
    assert (expected - found).abs().max() < 2.2 / math.sqrt(200_000)  # Kolmogorov and Smirnov: by chance 1 in 8,000


def test_uniform_values_never_reach_their_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    for byte in (b"\x00", b"\xff"):
        monkeypatch.setattr(
            "fedcl_distill.privacy.noise.hashlib.shake_256",
            lambda _, b=byte: type("Bits", (), {"digest": lambda self, n: b * n})(),
        )
        source = NoiseSource(bytes(32), True)
        assert 0 < source.uniform(1).item() < 1
        assert torch.isfinite(source.normal((1,))).all()


def test_draws_are_named_and_keys_differ() -> None:
    one, other = NoiseSource.fresh(), NoiseSource.fresh()
    assert torch.equal(one.normal((5,), "a", 1), one.normal((5,), "a", 1))
    assert not torch.equal(one.normal((5,), "a", 1), one.normal((5,), "a", 2))
    assert not torch.equal(one.normal((5,), "a"), other.normal((5,), "a"))
    assert one.secret
    assert "key" not in repr(one)
    seeded = NoiseSource.seeded(3)
    assert not seeded.secret
    assert torch.equal(seeded.uniform(4), NoiseSource.seeded(3).uniform(4))


def test_a_kept_key_is_private_and_belongs_to_its_data(tmp_path: Path) -> None:
    path = tmp_path / "run.noise"
    first = NoiseSource.kept(path, "data")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert torch.equal(NoiseSource.kept(path, "data").normal((3,)), first.normal((3,)))
    assert NoiseSource.kept(path, "data").name("data") == first.name("data")
    with pytest.raises(CheckpointError, match="another release"):
        NoiseSource.kept(path, "other data")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="damaged"):
        NoiseSource.kept(path, "data")
    with pytest.raises(StorageError):
        NoiseSource.kept(tmp_path, "data")
