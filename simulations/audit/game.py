"""The membership game (Yeom et al. 2018; Carlini et al. 2022): who was in, and who was not?

Every candidate is a member of a release by a fair coin of its own, so that members and others have one distribution,
and so that the coins are independent, as bounds of ε from a single release need (Steinke et al. 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import torch
from torch import Tensor

from fedcl_distill.audit import (
    Estimate,
    NearCopies,
    auc,
    lira_scores,
    logit_confidences,
    near_copies,
    nearest,
    one_run_epsilon,
    random_features,
    roc_curve,
    structural_similarity,
    true_positive_rate,
)
from fedcl_distill.data import LabelledData, Splits
from fedcl_distill.engine import Budget, finished
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.settings import Count, Natural, Range, settings
from fedcl_distill.synthetic import SyntheticSet, decode, encode, save_png
from fedcl_distill.synthetic.quantise import Bits
from fedcl_distill.training import TrainConfig, fit
from simulations.data import load_splits
from simulations.settings import MethodName, without_places

DISTIL = "distil"
"""The strategy of whoever has all data and distils them; every other name is a federated strategy."""


@settings
class AuditSettings:
    """What is released, and how it is attacked.

    Attributes:
        data: name of the data set, or path of an .npz file or image folder.
        data_root: folder to search first; a place on this computer, and no part of a result's settings.
        candidates: training samples of which a fair coin makes each a member or not, anew for every release.
        releases: how many are made. Each is attacked in turn, with the others as shadows.
        strategy: who makes a release: ``distil``, or a federated strategy such as ``fedavg`` or ``one-shot``.
        strategy_settings: the strategy's own settings.
        federated: further settings of the federated run, such as ``clients=4`` or ``rounds=10``.
        method: of distillation or selection.
        method_settings: the method's own settings, such as ``init=noise``; ``dm.clamp=true`` is for
            dm alone.
        images_per_class: synthetic samples of each class.
        distil_steps: optimisation steps; the method's own number by default.
        bits: of each released value, 2, 4, 8, 16 or 32.
        architecture: of the networks that the attacker trains on released sets, and of released models.
        attack_epochs: for which the attacker trains on a released set, without augmentation.
        delta: for which ε is bounded; a claimed one goes first.
        confidence: of intervals and of the bound.
        device: where to compute.
        seed: fixes coins, releases and attacks.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown.
    """

    data: str = "digits"
    data_root: str | None = None
    candidates: Annotated[int, Range(ge=20)] = 4000
    releases: Count = 9
    strategy: str = DISTIL
    strategy_settings: Mapping[str, Any] = field(default_factory=dict)
    federated: Mapping[str, Any] = field(default_factory=dict)
    method: MethodName = "dm"
    method_settings: Mapping[str, Any] = field(default_factory=dict)
    images_per_class: Count = 10
    distil_steps: Natural | None = None
    bits: Bits = 8
    architecture: str = "convnet:width=16"
    attack_epochs: Count = 60
    delta: Annotated[float, Range(ge=0, lt=1)] = 1e-5
    confidence: Annotated[float, Range(gt=0, lt=1)] = 0.95
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        Architecture.parse(self.architecture)
        if self.strategy == DISTIL:
            build_method(self.method, **self.method_settings)
            _ = self.budget
            if self.federated or self.strategy_settings:
                raise SettingsError("federated and strategy settings need a federated strategy")

    @property
    def budget(self) -> Budget | None:
        """Steps; None for the method's own."""
        return Budget.if_given(self.distil_steps, None)

    def as_record(self) -> dict[str, Any]:
        """JSON values that name the experiment: everything but places on this computer."""
        return without_places(asdict(self))

    def __str__(self) -> str:
        who = self.method if self.strategy == DISTIL else self.strategy
        return f"audit of {who} · {self.data} · {self.candidates} candidates · seed {self.seed}"


Release = SyntheticSet | Network
Maker = Callable[[LabelledData, LabelledData, int], Release]
"""Makes a release of members' data, with test data for whoever serves, by a seed."""


def maker_for(settings: AuditSettings) -> Maker:
    """The way that ``settings`` describe.

    Raises:
        SettingsError: the federated settings are wrong.
    """
    return _distiller(settings) if settings.strategy == DISTIL else _federation(settings)


def _distiller(settings: AuditSettings) -> Maker:
    def make(members: LabelledData, _: LabelledData, seed: int) -> SyntheticSet:
        method = build_method(settings.method, **settings.method_settings)
        size, budget = settings.images_per_class, settings.budget
        distilled = finished(method.distil(members, size, seed=seed, budget=budget, device=settings.device))
        return decode(encode(distilled, settings.bits))

    return make


def _federation(settings: AuditSettings) -> Maker:
    """What the server has in the end: the union of sets, or the global model where there is none."""
    from fedcl_distill.data import partition
    from simulations.scenarios.federated import quiet_flower
    from simulations.settings import FederatedSettings
    from strategies.federated import InProcessGrid, list_strategies, make_client_app, run_server
    from strategies.federated.answers import put_weights

    if settings.strategy not in list_strategies():
        raise SettingsError(f"unknown strategy {settings.strategy!r}; known: {DISTIL}, {', '.join(list_strategies())}")
    shared = [one.name for one in fields(FederatedSettings) if hasattr(settings, one.name) and one.name != "data_root"]
    own = {one.name for one in fields(FederatedSettings)} - set(shared)
    unknown = sorted(set(settings.federated) - own)
    if unknown:
        raise SettingsError(
            f"a federated run has no setting {', '.join(unknown)} here; it has: {', '.join(sorted(own))}"
        )
    given: dict[str, Any] = {name: getattr(settings, name) for name in shared}
    FederatedSettings(**given, **settings.federated)  # what is wrong is reported before anything runs

    def make(members: LabelledData, test: LabelledData, seed: int) -> Release:
        run = FederatedSettings(**{**given, "seed": seed}, **settings.federated)
        parts = partition(members, run.partition, run.clients, seed=seed, min_size=run.min_client_samples)
        client_app = make_client_app(lambda context: parts[int(context.node_config["partition-id"])])
        with quiet_flower(), InProcessGrid(client_app, run.clients, run.to_run_config()) as grid:
            result = run_server(grid, run.build_strategy(), test=test, **run.options)
        if result.synthetic is not None:
            return result.synthetic
        architecture = Architecture.parse(settings.architecture)
        network = architecture.build(test.sample_shape, test.num_classes, seed=seed, device=settings.device)
        put_weights(network, result.weights)
        return network

    return make


_PAIRS, _SCALE = 5, 2


def count_copies(release: SyntheticSet, game: Game, picture: Path | None) -> dict[str, Any]:
    """Near copies of members in the first release, and as a control of candidates that were none.

    Of images, the picture shows pairs for each class, the closest first: a released sample, and the member beside it.
    """
    members, others = game.data_of(0), game.others_of(0)
    found = near_copies(release, members, game.references)
    control = near_copies(release, others, game.references)
    counts: dict[str, Any] = {"near_copies": found.count, "near_copies_of_others": control.count}
    if len(release.sample_shape) == 3 and (found.positions >= 0).all():
        originals = members.unit(found.positions)
        similarity = structural_similarity(pixels_of(release), originals)
        counts["structural_similarity"] = float(similarity.median())
        if picture is not None and release.sample_shape[0] in (1, 3):
            save_png(_pairs(release, members, found), picture, columns=2 * _PAIRS, scale=_SCALE)
    return counts


def _pairs(release: SyntheticSet, members: LabelledData, found: NearCopies) -> SyntheticSet:
    order = found.distances.argsort()
    sides = [release.inputs()[order], members.inputs(found.positions[order])]
    return replace(
        release,
        arrays={"pixels": torch.stack(sides, dim=1).flatten(0, 1)},
        parameterization=Pixels(),
        labels=release.hard_labels[order].repeat_interleave(2),
    )


_REFERENCES = 2000


@dataclass(frozen=True)
class Game:
    """Samples that may be members.

    Attributes:
        candidates: the samples.
        members: bool (releases, n): who was in which release.
        references: held out from every release: what the attacker knows of the distribution.
        test: on which the use of a release is measured.
        fair: whether membership was decided by independent fair coins.
    """

    candidates: LabelledData
    members: Tensor
    references: LabelledData
    test: LabelledData
    fair: bool = True

    def __post_init__(self) -> None:
        inside = self.members.sum(dim=1)
        if (inside < 2).any() or (inside > len(self.candidates) - 2).any():
            raise DataError(f"{self.candidates.name}: the game needs two members and two others at least")

    def data_of(self, release: int) -> LabelledData:
        """The members of a release."""
        return self.candidates.subset(self.members[release].nonzero().flatten())

    def others_of(self, release: int) -> LabelledData:
        """Candidates that are no members."""
        return self.candidates.subset((~self.members[release]).nonzero().flatten())


def toss_coins(data: str, root: str | None, candidates: int, releases: int, seed: int) -> Game:
    """Draw candidates from the training data, and toss each one's coin for every release."""
    splits = load_splits(data, root=root, train_limit=candidates, seed=seed)
    coins = torch.rand(releases, len(splits.train), generator=generator_for(seed, "coins"))
    return Game(splits.train, coins < 0.5, _some(splits.test, seed), splits.test)


def game_of_record(splits: Splits, members: Tensor | None, seed: int) -> Game:
    """The game about a release that was made before, whose members are on record.

    Args:
        splits: of the data.
        members: int64 (k,) positions among the training data; None if all of them were members. The others are then
            half of the test samples, beside as many members at most; the other half serves as references.
        seed: of what is drawn.

    Raises:
        DataError: a position is out of range, or there are too few members or others.
    """
    train, test = splits.train, splits.test
    if members is not None:
        if not len(members) or int(members.min()) < 0 or int(members.max()) >= len(train):
            raise DataError(f"members must be positions below {len(train)}")
        inside = torch.zeros(1, len(train), dtype=torch.bool)
        inside[0, members] = True
        return Game(train, inside, _some(test, seed), test, fair=False)
    order = torch.randperm(len(test), generator=generator_for(seed, "others"))
    others, references = order[: len(test) // 2], order[len(test) // 2 :]
    count = min(len(others), len(train))
    chosen = torch.randperm(len(train), generator=generator_for(seed, "members"))[:count]
    asked = _joined(train.subset(chosen), test.subset(others[:count]))
    inside = (torch.arange(len(asked)) < count).unsqueeze(0)
    return Game(asked, inside, test.subset(references[:_REFERENCES]), test, fair=False)


def _some(data: LabelledData, seed: int) -> LabelledData:
    return data.subset(torch.randperm(len(data), generator=generator_for(seed, "references"))[:_REFERENCES])


def _joined(one: LabelledData, other: LabelledData) -> LabelledData:
    samples, labels = torch.cat([one.samples, other.samples]), torch.cat([one.labels, other.labels])
    return LabelledData(samples, labels, one.spec, one.name)


CONFIDENCE, PIXELS, FEATURES = "confidence", "pixels", "features"
"""What is observed of each candidate, larger for likely members: the logit of a model's confidence in its class, and
minus the logarithm of the distance to the nearest released sample of its class."""

_MIN_DISTANCE = 1e-3
_RECIPE = {"learning_rate": 0.02, "batch_size": 32, "schedule": "cosine"}


@dataclass(frozen=True)
class Attacker:
    """Sees releases, and knows what is public: the way they are made, candidates, reference samples."""

    settings: AuditSettings
    game: Game

    def model_of(self, release: Release, seed: int) -> Network:
        """A released model itself, or one that the attacker trains on a released set."""
        if isinstance(release, Network):
            return release
        test = self.game.test
        network = Architecture.parse(self.settings.architecture).build(
            test.sample_shape, test.num_classes, seed=seed, device=self.settings.device
        )
        fit(network, release.inputs(), release.labels, TrainConfig(self.settings.attack_epochs, **_RECIPE), seed=seed)  # type: ignore[arg-type]
        return network

    def observe(self, release: Release, model: Network) -> dict[str, Tensor]:
        """float64 (n,) of every kind of observation that the release offers."""
        observed = {CONFIDENCE: logit_confidences(model, self.game.candidates)}
        if isinstance(release, SyntheticSet):
            labels = release.hard_labels
            observed[PIXELS] = self._nearness(self._seen(release), labels, self._pixels)
            if self._features is not None:
                observed[FEATURES] = self._nearness(self._embed(release.inputs()), labels, self._features)
        return observed

    def scores(self, observed: Mapping[str, Tensor], release: int) -> dict[str, Tensor]:
        """The score of each attack on one of the releases, float64 (n,).

        Args:
            observed: (releases, n) of each kind; releases but the attacked one are shadows.
            release: the attacked one.
        """
        candidates, confidences = self.game.candidates, observed[CONFIDENCE]
        found = {
            "loss": confidences[release],
            "loss, by class": confidences[release] - _class_medians(confidences[release], candidates),
        }
        if len(confidences) > 2:
            found["LiRA"] = self._lira(confidences, release)
            found["LiRA offline"] = self._lira(confidences, release, offline=True)
        if PIXELS in observed:
            found["nearest pixels"] = observed[PIXELS][release]
            found["pixels, relative"] = observed[PIXELS][release] - self._usual_nearness
        if FEATURES in observed:
            found["nearest features"] = observed[FEATURES][release]
        if PIXELS in observed and len(confidences) > 2:
            found["LiRA on pixels"] = self._lira(observed[PIXELS], release)
        return found

    def _lira(self, observed: Tensor, release: int, *, offline: bool = False) -> Tensor:
        shadows = torch.arange(len(observed)) != release
        return lira_scores(observed[release], observed[shadows], self.game.members[shadows], offline=offline)

    def _nearness(self, released: Tensor, labels: Tensor, candidates: Tensor) -> Tensor:
        distances, _ = nearest(candidates, self.game.candidates.labels, released, labels)
        return nearness(distances)

    @cached_property
    def _pixels(self) -> Tensor:
        return _seen_of(self.game.candidates)

    @cached_property
    def _features(self) -> Tensor | None:
        """Of images alone: an untrained network tells nothing more of a few features."""
        return self._embed(self.game.candidates.inputs()) if self.game.candidates.is_image else None

    @cached_property
    def _usual_nearness(self) -> Tensor:
        references = self.game.references
        return self._nearness(_seen_of(references), references.labels, self._pixels)

    def _seen(self, release: SyntheticSet) -> Tensor:
        return pixels_of(release) if self.game.candidates.is_image else release.inputs()

    def _embed(self, inputs: Tensor) -> Tensor:
        return random_features(inputs, seed=derive_seed(self.settings.seed, "features"))


def _seen_of(data: LabelledData) -> Tensor:
    """Pixels as a viewer sees them; feature vectors normalised, so that no unit of measurement outweighs the others."""
    return data.unit() if data.is_image else data.inputs()


def pixels_of(release: SyntheticSet) -> Tensor:
    """Released samples in unit values, cut to the range of the data: what a viewer sees."""
    return release.samples().clamp(*release.value_range)


def nearness(distances: Tensor) -> Tensor:
    """Minus the logarithm of distances; of those in a class without released samples, less than any other."""
    found = -distances.double().clamp(min=_MIN_DISTANCE).log()
    finite = found.isfinite()
    return torch.where(finite, found, found[finite].min() - 1 if finite.any() else torch.zeros((), dtype=found.dtype))


def _class_medians(values: Tensor, data: LabelledData) -> Tensor:
    medians = torch.zeros_like(values)
    for label in torch.unique(data.labels).tolist():
        of_class = data.labels == label
        medians[of_class] = values[of_class].median()
    return medians


RATES = (0.01, 0.001)
"""False positive rates at which finds are counted."""

_CURVE_POINTS = 41
_GUESSES = ((0.01, 0.0), (0.025, 0.0), (0.05, 0.05), (0.5, 0.5))
"""Fractions of the candidates that are guessed to be members and others, for bounds of ε; fixed for all audits."""


def judge_attack(scores: Tensor, members: Tensor, confidence: float) -> dict[str, Any]:
    """Area, finds and curve of one attack on each of several releases, and their means.

    The ends of intervals are means, too: that holds however the releases' errors hang together.

    Args:
        scores: floats (releases, n).
        members: bool (releases, n).
        confidence: of the intervals.
    """
    sides = [(one[inside], one[~inside]) for one, inside in zip(scores, members, strict=True)]
    found: dict[str, Any] = {"auc": _mean([auc(*both, confidence) for both in sides])}
    for rate in RATES:
        if min(len(others) for _, others in sides) * rate >= 1:
            finds = [true_positive_rate(*both, rate, confidence) for both in sides]
            found[f"tpr_at_{rate:g}"] = _mean(finds)
    false_rates = torch.logspace(-math.log10(scores.shape[1] / 2), 0, _CURVE_POINTS, dtype=torch.float64)
    curves = [_interpolated(*roc_curve(*both), false_rates) for both in sides]
    found["curve"] = {"fpr": false_rates.tolist(), "tpr": torch.stack(curves).mean(dim=0).tolist()}
    return found


def bounds_of_epsilon(
    scores: Mapping[str, Tensor], game: Game, *, delta: float, confidence: float
) -> dict[str, float] | None:
    """A lower bound of ε from each attack on the first release; all of them, so the largest, hold with ``confidence``.

    None where members were not drawn by fair coins: nothing can be concluded then.
    """
    if not game.fair:
        return None
    count = len(game.candidates)
    guesses = [(int(count * inside), int(count * outside)) for inside, outside in _GUESSES]
    each = 1 - (1 - confidence) / len(scores)
    return {
        name: one_run_epsilon(one, game.members[0], guesses=guesses, delta=delta, confidence=each)
        for name, one in scores.items()
    }


def _mean(estimates: Sequence[Estimate]) -> dict[str, Any]:
    ends = {name: fmean(getattr(one, name) for one in estimates) for name in Estimate._fields}
    return {**ends, "values": [one.value for one in estimates]}


def _interpolated(false_rates: Tensor, true_rates: Tensor, places: Tensor) -> Tensor:
    """The curve as steps: the best rate reached within each false positive rate."""
    within = torch.searchsorted(false_rates, places + 1e-12, right=True) - 1
    return true_rates[within]
