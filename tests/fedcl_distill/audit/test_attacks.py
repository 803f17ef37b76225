"""Attacks where the right answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from builders import blobs
from fedcl_distill.audit import (
    auc,
    lira_scores,
    logit_confidences,
    near_copies,
    nearest,
    random_features,
    structural_similarity,
)
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.networks import Architecture
from fedcl_distill.synthetic import SyntheticSet


def test_confidences_are_the_logit_of_the_probability():
    data = blobs()
    network = Architecture.parse("mlp:width=8").build(data.sample_shape, data.num_classes, seed=0)
    chances = network(data.inputs()).double().softmax(dim=1).gather(1, data.labels.unsqueeze(1)).squeeze(1)
    assert torch.allclose(logit_confidences(network, data), torch.logit(chances).detach(), atol=1e-5)


def test_confidences_stay_finite_where_probabilities_are_one():
    data = blobs((2,), classes=2)

    class Sure(nn.Module):
        weight = nn.Parameter(torch.ones(1))

        def parameters(self, recurse=True):
            return iter([self.weight])

        def forward(self, inputs):
            return torch.tensor([[200.0, -200.0]]).expand(len(inputs), 2)

    assert logit_confidences(Sure(), data).unique().tolist() == [-400.0, 400.0]
    with pytest.raises(DataError, match="two classes"):
        logit_confidences(Sure(), blobs((2,), classes=1))


def _toy(releases: int, samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Observations that are normal: a mean for each sample, 1 more for members, deviation 1."""
    generator = torch.Generator().manual_seed(seed)
    members = torch.rand(releases, samples, generator=generator) < 0.5
    difficulty = 5 * torch.randn(samples, generator=generator)
    noise = torch.randn(releases, samples, generator=generator)
    return (difficulty + members.double() + noise).double(), members, difficulty.double()


def test_lira_comes_near_the_true_likelihood_ratio():
    seen, members, difficulty = _toy(65, 3000, 0)
    observed, truth = seen[0], members[0]
    best = observed - difficulty  # the ratio of two normals of equal deviation is monotone in it
    areas = {
        "best": auc(best[truth], best[~truth]).value,
        "raw": auc(observed[truth], observed[~truth]).value,
        "online": _area(lira_scores(observed, seen[1:], members[1:]), truth),
        "offline": _area(lira_scores(observed, seen[1:], members[1:], offline=True), truth),
        "eight": _area(lira_scores(observed, seen[1:9], members[1:9]), truth),
    }
    assert areas["best"] == pytest.approx(0.76, abs=0.02)  # Φ(1/√2)
    assert areas["raw"] < 0.58
    assert areas["best"] - 0.015 < areas["online"] <= areas["best"] + 0.01
    assert areas["best"] - 0.02 < areas["offline"]
    assert areas["raw"] + 0.08 < areas["eight"] < areas["online"] + 0.005


def _area(scores: torch.Tensor, truth: torch.Tensor) -> float:
    return auc(scores[truth], scores[~truth]).value


def test_lira_is_the_log_ratio_of_two_densities():
    seen, members, _ = _toy(9, 4, 5)
    members[1:] = (torch.arange(8).unsqueeze(1) + torch.arange(4)) % 2 == 0
    shadows, inside = seen[1:], members[1:]
    expected = []
    fits = []
    for chosen in (inside, ~inside):
        means = [shadows[chosen[:, n], n].mean() for n in range(4)]
        residuals = torch.cat([shadows[chosen[:, n], n] - means[n] for n in range(4)])
        fits.append((means, (residuals.square().sum() / (4 * 3)).sqrt()))
    for n in range(4):
        densities = [torch.distributions.Normal(means[n], deviation) for means, deviation in fits]
        expected.append(densities[0].log_prob(seen[0, n]) - densities[1].log_prob(seen[0, n]))
    assert torch.allclose(lira_scores(seen[0], shadows, inside), torch.stack(expected))


def test_a_sample_that_no_shadow_had_takes_the_usual_gap():
    means = torch.tensor([[0.0, 1.0, 7.0], [2.0, 3.0, 7.0], [0.0, 1.0, 7.0], [2.0, 3.0, 7.0]])
    noise = torch.tensor([[-0.1], [-0.1], [0.1], [0.1]])
    members = torch.tensor([[False, False, False], [True, True, False]] * 2)
    half_way = lira_scores(torch.tensor([1.0, 2.0, 8.0]), means + noise, members)
    assert torch.allclose(half_way, half_way[:1].expand(3), atol=1e-3)
    nearer = lira_scores(torch.tensor([1.5, 2.5, 8.5]), means + noise, members)
    assert (nearer > half_way + 10).all()


def test_shadows_that_cannot_serve_are_refused():
    seen, members, _ = _toy(3, 5, 0)
    with pytest.raises(DataError, match="belong together"):
        lira_scores(seen[0], seen[1:], members)
    with pytest.raises(DataError, match="NaN"):
        lira_scores(seen[0], seen[1:] * float("nan"), members[1:])
    with pytest.raises(DataError, match="leave out"):
        lira_scores(seen[0], seen[1:], torch.ones(2, 5, dtype=torch.bool))


def test_nearest_is_brute_force_within_classes():
    generator = torch.Generator().manual_seed(0)
    queries, references = torch.randn(30, 2, 3, generator=generator), torch.randn(11, 2, 3, generator=generator)
    labels, reference_labels = torch.arange(30) % 4, torch.arange(11) % 3
    distances, positions = nearest(queries, labels, references, reference_labels)
    for n in range(30):
        same = [m for m in range(11) if reference_labels[m] == labels[n]]
        if not same:
            assert distances[n] == float("inf")
            assert positions[n] == -1
            continue
        best = min(same, key=lambda m: float((queries[n] - references[m]).norm()))
        assert positions[n] == best
        assert distances[n] == pytest.approx(float((queries[n] - references[best]).norm()), rel=1e-5)


def test_exact_copies_are_at_distance_zero():
    data = blobs((1, 28, 28))
    inputs = data.inputs()
    assert nearest(inputs, data.labels, inputs, data.labels)[0].max() == 0
    features = random_features(inputs, seed=0)
    assert torch.equal(features, random_features(inputs, seed=0))
    assert nearest(features, data.labels, features, data.labels)[1].tolist() == list(range(len(data)))


def test_core_sets_are_copies_and_new_samples_are_not(digits):
    half = torch.arange(len(digits.train)) % 2 == 0
    real, held_out = (digits.train.subset(rows.nonzero().flatten()) for rows in (half, ~half))
    core = build_method("random").distil(real, 10, seed=0)
    found = near_copies(core, real, held_out)
    assert found.count == len(core) == 100
    assert found.distances.max() < 1e-5
    assert torch.equal(real.labels[found.positions], core.labels)
    others = SyntheticSet.of_real(digits.test)
    assert near_copies(others, real, held_out, quantile=0.05).count < 0.12 * len(others)


def test_a_copy_of_other_brightness_and_contrast_is_a_copy():
    real, held_out = blobs(seed=0), blobs(seed=1)
    changed = SyntheticSet.of_real(real)
    arrays = {"pixels": 0.4 * changed.arrays["pixels"] + 0.7}
    copied = near_copies(
        SyntheticSet(arrays, changed.parameterization, changed.labels, changed.spec),
        real,
        held_out,
    )
    assert copied.count == len(real)
    assert copied.positions.tolist() == list(range(len(real)))
    with pytest.raises(SettingsError):
        near_copies(changed, real, held_out, quantile=1.0)


def test_structural_similarity_of_known_pairs():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 16, 12, generator=generator)
    assert torch.allclose(structural_similarity(images, images), torch.ones(4))
    flat = torch.full((1, 1, 8, 8), 0.25), torch.full((1, 1, 8, 8), 0.75)
    by_hand = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)  # no contrast: only light differs
    assert float(structural_similarity(*flat)) == pytest.approx(by_hand, abs=1e-3)
    assert float(structural_similarity(images[:1], 1 - images[:1])) < -0.5


def test_structural_similarity_is_the_mean_over_windows():
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.rand(1, 1, 12, 13, generator=generator).double() for _ in range(2))
    places = torch.arange(11.0).double() - 5
    line = torch.exp(-places.square() / 4.5)
    weights, found = torch.outer(line, line) / line.sum() ** 2, []
    for top in range(2):
        for start in range(3):
            one, other = (image[0, 0, top : top + 11, start : start + 11] for image in (left, right))
            means = (weights * one).sum(), (weights * other).sum()
            spread = (weights * (one - means[0]) ** 2).sum() + (weights * (other - means[1]) ** 2).sum()
            together = (weights * (one - means[0]) * (other - means[1])).sum()
            light = (2 * means[0] * means[1] + 1e-4) / (means[0] ** 2 + means[1] ** 2 + 1e-4)
            found.append(light * (2 * together + 9e-4) / (spread + 9e-4))
    assert float(structural_similarity(left.float(), right.float())) == pytest.approx(float(sum(found) / 6), abs=1e-5)
