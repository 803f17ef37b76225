"""Membership attacks: likelihood ratios, nearest samples, copies, and their ROC curves."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedcl_distill.audit.epsilon import Estimate, check_confidence, clopper_pearson
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.networks import default_architecture
from fedcl_distill.seeding import derive_seed
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.training import class_logits


def logit_confidences(network: nn.Module, data: LabelledData) -> Tensor:
    """float64 (n,): log(p / (1 − p)) of the probability p that ``network`` gives each sample's own class.

    It is about normal over trainings (Carlini et al. 2022, section IV-C), and it orders samples as the loss does: a
    threshold on it is the threshold on the loss of Yeom et al. (2018).

    Raises:
        DataError: there is a single class, so that every probability is 1.
    """
    if data.num_classes < 2:
        raise DataError(f"{data.name}: confidences need two classes at least")
    scores = class_logits(network, data).double()
    own = scores.gather(1, data.labels.unsqueeze(1))
    others = scores.scatter(1, data.labels.unsqueeze(1), -torch.inf)
    return own.squeeze(1) - others.logsumexp(dim=1)


def auc(members: Tensor, others: Tensor, confidence: float = 0.95) -> Estimate:
    """Probability that a member scores above another sample, ties counted half (Mann and Whitney 1947).

    The interval is normal with the variance of DeLong et al. (1988), cut to [0, 1]. It has no width where the two
    groups do not overlap at all.

    Args:
        members, others: floats (n,) and (m,), at least two of each, no NaN.
        confidence: of the interval.

    Raises:
        DataError: too few scores, or NaN.
    """
    check_confidence(confidence)
    members, others = _checked(members), _checked(others)
    above_others = _fraction_below(members, others)
    below_members = 1 - _fraction_below(others, members)
    value = float(above_others.mean())
    variance = float(above_others.var() / len(members) + below_members.var() / len(others))
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * variance**0.5
    return Estimate(value, max(0.0, value - reach), min(1.0, value + reach))


def true_positive_rate(
    members: Tensor, others: Tensor, false_positive_rate: float, confidence: float = 0.95
) -> Estimate:
    """Fraction of members found by the lowest threshold that accepts at most this fraction of the others.

    The threshold depends on the others alone, so that the interval of Clopper and Pearson holds for the members,
    given the threshold.

    Raises:
        DataError: too few scores, or NaN.
        SettingsError: the rate is not in [0, 1].
    """
    if not 0 <= false_positive_rate <= 1:
        raise SettingsError(f"a false positive rate is in [0, 1], got {false_positive_rate}")
    members, others = _checked(members), _checked(others)
    accepted = int(false_positive_rate * len(others) + 1e-9)
    if accepted == len(others):
        return Estimate(1.0, 1.0, 1.0)
    threshold = others.sort(descending=True).values[accepted]
    return clopper_pearson(int((members > threshold).sum()), len(members), confidence)


def roc_curve(members: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """float64 (k,) false and true positive rates of every distinct threshold, from (0, 0) to (1, 1).

    Raises:
        DataError: too few scores, or NaN.
    """
    members, others = _checked(members), _checked(others)
    thresholds = torch.unique(torch.cat([members, others]))
    rates = [
        1 - torch.searchsorted(scores.sort().values, thresholds).double() / len(scores) for scores in (others, members)
    ]
    zero = torch.zeros(1, dtype=torch.float64)
    return torch.cat([zero, rates[0].flip(0)]), torch.cat([zero, rates[1].flip(0)])


def _fraction_below(scores: Tensor, references: Tensor) -> Tensor:
    """For each of ``scores``, the fraction of ``references`` below it, ties counted half."""
    ordered = references.sort().values
    below, up_to = (torch.searchsorted(ordered, scores, right=right) for right in (False, True))
    return (below + up_to).double() / (2 * len(references))


def _checked(scores: Tensor) -> Tensor:
    if scores.ndim != 1 or len(scores) < 2:
        raise DataError(f"an audit needs two scores of each group at least, got shape {tuple(scores.shape)}")
    if torch.isnan(scores).any():
        raise DataError("scores hold NaN")
    return scores.double()


_QUERIES_AT_ONCE = 512
_WIDTH, _NETWORKS = 32, 3


def nearest(queries: Tensor, labels: Tensor, references: Tensor, reference_labels: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean distance of each query to the nearest reference of its class, and which one it is.

    Args:
        queries, references: floats (n, …) and (m, …).
        labels, reference_labels: int64 (n,) and (m,).

    Returns:
        float32 (n,) distances and int64 (n,) positions among ``references``; infinity and −1 where the class has none.
    """
    distances = torch.full((len(queries),), torch.inf)
    positions = torch.full((len(queries),), -1)
    for label in torch.unique(labels).tolist():
        among = (reference_labels == label).nonzero().flatten()
        if not len(among):
            continue
        for rows in torch.split((labels == label).nonzero().flatten(), _QUERIES_AT_ONCE):
            pairs = _distances(queries[rows], references[among])
            distances[rows], place = pairs.min(dim=1)
            positions[rows] = among[place]
    return distances, positions


def random_features(inputs: Tensor, *, seed: int) -> Tensor:
    """float32 (n, features): embeddings of network inputs (n, …) under three untrained networks, side by side.

    Distances there forgive small shifts that distances of pixels do not.
    """
    shape = tuple(inputs.shape[1:])
    networks = [
        default_architecture(shape, _WIDTH).build(shape, 2, seed=derive_seed(seed, "feature network", index))
        for index in range(_NETWORKS)
    ]
    with torch.no_grad():
        parts = [torch.cat([one.embed(part) for part in torch.split(inputs, _QUERIES_AT_ONCE)]) for one in networks]
    return torch.cat(parts, dim=1)


def _distances(left: Tensor, right: Tensor) -> Tensor:
    """Without the shortcut by matrix products, whose rounding hides exact copies."""
    return torch.cdist(left.flatten(1), right.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")


_WINDOW, _SIGMA = 11, 1.5
_STABILISERS = (0.01**2, 0.03**2)


@dataclass(frozen=True)
class NearCopies:
    """The nearest real sample of each synthetic one.

    Attributes:
        positions: int64 (n,) of the nearest real sample of the class; −1 where the class has none.
        distances: float32 (n,) to it. Images are compared after :func:`standardised`: 0 for a copy whatever its
            brightness and contrast, √2 for unrelated ones, 2 for a negative. Feature vectors are compared normalised.
        limits: float32 (n,): below which a distance is that of a near copy; 0 where no held-out sample tells.
    """

    positions: Tensor
    distances: Tensor
    limits: Tensor

    @property
    def flagged(self) -> Tensor:
        """bool (n,): whether a sample is a near copy."""
        return self.distances < self.limits

    @property
    def count(self) -> int:
        return int(self.flagged.sum())


def near_copies(
    synthetic: SyntheticSet, real: LabelledData, held_out: LabelledData, quantile: float = 0.01
) -> NearCopies:
    """Flag synthetic samples that lie closer to a sample of ``real`` than real samples that it never saw do.

    A sample is a near copy if it is closer than the given quantile of the distances that held-out samples of its class
    have to theirs: about that fraction of genuinely new samples would be flagged, too.

    Args:
        synthetic: what is released.
        real: what it was made from.
        held_out: of the same distribution, no sample of it in ``real``.
        quantile: in (0, 1).
    """
    if not 0 < quantile < 1:
        raise SettingsError(f"the quantile must be between 0 and 1, got {quantile}")
    labels, images = synthetic.hard_labels, real.is_image
    released = standardised(synthetic.samples()) if images else synthetic.inputs()
    references, unseen = (standardised(data.unit()) if images else data.inputs() for data in (real, held_out))
    distances, positions = nearest(released, labels, references, real.labels)
    usual, _ = nearest(unseen, held_out.labels, references, real.labels)
    limits = torch.zeros(len(labels))
    for label in torch.unique(labels).tolist():
        of_class = usual[held_out.labels == label]
        if len(of_class):
            limits[labels == label] = of_class.quantile(quantile)
    return NearCopies(positions, distances, limits)


def standardised(samples: Tensor) -> Tensor:
    """``samples`` (n, …) flattened, each with mean 0 and norm 1: brightness and contrast are gone."""
    flat = samples.flatten(1)
    return F.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1)


def structural_similarity(left: Tensor, right: Tensor) -> Tensor:
    """float32 (n,) in [−1, 1]: SSIM of image pairs (n, channels, height, width) in [0, 1] (Wang et al. 2004).

    Gaussian window of 11×11 pixels, deviation 1.5, smaller where images are; without padding; mean over channels.
    """
    channels, smallest = left.shape[1], min(left.shape[2:])
    size = min(_WINDOW, smallest - (smallest + 1) % 2)
    window = _window(size, channels)

    def average(values: Tensor) -> Tensor:
        return F.conv2d(values, window, groups=channels)

    means = average(left), average(right)
    variances = average(left * left) - means[0] ** 2, average(right * right) - means[1] ** 2
    covariance = average(left * right) - means[0] * means[1]
    light = (2 * means[0] * means[1] + _STABILISERS[0]) / (means[0] ** 2 + means[1] ** 2 + _STABILISERS[0])
    shape = (2 * covariance + _STABILISERS[1]) / (variances[0] + variances[1] + _STABILISERS[1])
    return (light * shape).flatten(1).mean(dim=1)


def _window(size: int, channels: int) -> Tensor:
    places = torch.arange(size) - (size - 1) / 2
    line = torch.exp(-(places**2) / (2 * _SIGMA**2))
    line = line / line.sum()
    return torch.outer(line, line).expand(channels, 1, size, size)


_MIN_VARIANCE = 1e-12


def lira_scores(observed: Tensor, shadows: Tensor, members: Tensor, *, offline: bool = False) -> Tensor:
    """float64 (n,): how much likelier each observation is if its sample was a member than if it was not.

    The observations of one sample are taken as normal: with a mean of its own over the shadows that had the sample
    and another over those that had not, and with one variance for all samples on either side, which the authors
    recommend where shadows are few. A sample that all shadows had, or none, takes the missing mean at the usual
    distance from the other.

    Args:
        observed: floats (n,): what the audited release shows of each sample, such as
            :func:`~fedcl_distill.audit.logit_confidences`.
        shadows: floats (releases, n): the same of releases whose members the attacker knows.
        members: bool (releases, n): who was a member of which shadow.
        offline: score by how unusual the observation is for a sample that was no member; shadows with the samples are
            not needed then.

    Raises:
        DataError: shapes differ, an observation is not finite, or shadows had all or none of the samples.
    """
    if shadows.shape != members.shape or shadows.ndim != 2 or observed.shape != shadows.shape[1:]:
        raise DataError(
            f"observations of shape {tuple(observed.shape)}, shadows {tuple(shadows.shape)}, members "
            f"{tuple(members.shape)} do not belong together"
        )
    if not torch.isfinite(shadows).all() or not torch.isfinite(observed).all():
        raise DataError("observations hold NaN or infinity")
    if not (~members).any() or not (offline or members.any()):
        raise DataError("shadows must hold some samples and leave out others")
    observed, shadows = observed.double(), shadows.double()
    outside, outside_variance = _fit(shadows, ~members)
    if offline:
        mean = torch.where(outside.isnan(), outside.nanmean(), outside)
        unusual: Tensor = torch.special.log_ndtr((observed - mean) / outside_variance.sqrt())
        return unusual
    inside, inside_variance = _fit(shadows, members)
    gap = (inside - outside).nanmean().nan_to_num(0.0)
    inside, outside = (
        torch.where(inside.isnan(), outside + gap, inside),
        torch.where(outside.isnan(), inside - gap, outside),
    )
    return _log_density(observed, inside, inside_variance) - _log_density(observed, outside, outside_variance)


def _fit(shadows: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the chosen observations of each sample, NaN for none, and their variance within samples."""
    counts = chosen.sum(dim=0)
    means = torch.where(chosen, shadows, 0.0).sum(dim=0) / counts
    squares = torch.where(chosen, shadows - means, 0.0).square().sum()
    freedom = (counts - 1).clamp(min=0).sum()
    if freedom == 0:  # a single observation of each: how samples differ is the best guess there is
        return means, shadows[chosen].var(correction=0).clamp(min=_MIN_VARIANCE)
    return means, (squares / freedom).clamp(min=_MIN_VARIANCE)


def _log_density(values: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Of a normal distribution, up to a constant."""
    return -0.5 * ((values - mean).square() / variance + variance.log())
