"""Which way to send a data set in few bytes: every kind of answer tried on held-out data, and one recommendation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedcl_distill.errors import SettingsError
from fedcl_distill.settings import Count, Natural, Positive, settings
from simulations.data import read_data, with_options
from simulations.flower.app import central_test_data
from simulations.formats import byte_size
from simulations.running.compare import Failures, compare
from simulations.running.progress import Silent, Watcher
from simulations.running.runs import Kind, Record, Run, read_records
from simulations.settings import FederatedSettings
from simulations.tables.variants import holds_real_samples

HELD_OUT = 0.2
"""Of the training data: what everything is judged on. Test data are not looked at."""
_FEDAVG_RATES = (0.01, 0.03, 0.1)
_CEILING_EPOCHS = 20


@settings
class AdviceSettings:
    """What is to be sent, and by how many.

    Attributes:
        data: name or path of the data set. Where a backbone stands behind it (``--features``), sums of its features are
            tried, too.
        data_root: folder to search first.
        train_limit: at most so many training samples, drawn at random; all by default.
        bytes: that each client may send, in all.
        rounds: of FedAvg, with models in 8 bits both ways.
        clients: how many hold the data.
        partition: how the training data are divided over clients, such as "iid" or "dirichlet:0.1".
        distil_seconds: of each client's distillation.
        architecture: of the model that is to be trained, such as "convnet:width=64".
        device: where to compute.
        seed: fixes everything but how far a distillation gets in its seconds.

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    data: str = "digits"
    data_root: str | None = None
    train_limit: Count | None = None
    bytes: Count = 8_000
    rounds: Count = 10
    clients: Count = 1
    partition: str = "iid"
    distil_seconds: Positive = 60.0
    architecture: str | None = None
    device: str = "cpu"
    seed: Natural = 0


@dataclass(frozen=True)
class Way:
    """One way to let a server learn from data that stay where they are.

    Attributes:
        label: what it is, in a few words.
        runs: settings that it was tried with; the best counts, as for every tuned baseline.
        effort: what it needs beside bytes, from 0: of ways that are level, the lowest is chosen.
        ceiling: whether it is a bound and no way: all data in one place.
    """

    label: str
    runs: tuple[FederatedSettings, ...]
    effort: int = 0
    ceiling: bool = False

    @property
    def sends_real_samples(self) -> bool:
        """Whether whoever receives what is sent sees someone's data."""
        return self.runs[0].strategy == "one-shot" and holds_real_samples(self.runs[0].method)

    def fits(self, bytes_per_client: float, budget: int) -> bool:
        """Whether what a client sends stays within ``budget``; what Flower's messages take beside it is not counted."""
        return not self.ceiling and (self.runs[0].byte_budget is not None or bytes_per_client <= budget)


@dataclass(frozen=True)
class Tried:
    """How good a way was.

    Attributes:
        way: what was tried.
        accuracy: on held-out data, in [0, 1].
        bytes_per_client: that a client sent and received, on average.
        seconds: of all clients and the server together.
    """

    way: Way
    accuracy: float
    bytes_per_client: float
    seconds: float


def ways(asked: AdviceSettings) -> list[Way]:
    """Every kind of answer, the simplest first; the ceiling last."""
    _, options = read_data(asked.data)
    common = FederatedSettings(
        seed=asked.seed,
        data=with_options(asked.data, {"features": None}),
        data_root=asked.data_root,
        train_limit=asked.train_limit,
        validation_share=HELD_OUT,
        clients=asked.clients,
        partition=asked.partition,
        architecture=asked.architecture,
        protocol="quick",
        device=asked.device,
    )
    sent = replace(common, byte_budget=asked.bytes)
    found = []
    if options.features is not None:
        on_features = replace(sent, data=asked.data, architecture=None, strategy="feature-sums")
        found.append(Way(f"sums of features of {options.features}", (on_features,), 0))
    found += [
        Way("random real samples, 8 bits", (replace(sent, method="random"),), 1),
        Way("herding, 8 bits", (replace(sent, method="herding"),), 1),
        Way("random real samples, few bits", (replace(sent, method="random", fit_to_budget=True),), 2),
        Way("random real samples, compressed", (replace(sent, method="compressed"),), 2),
    ]
    distilled = replace(sent, method="dm", fit_to_budget=True, distil_seconds=asked.distil_seconds)
    averaged = replace(
        common, strategy="quantised", strategy_settings={"bits": 8, "download_bits": 8}, rounds=asked.rounds
    )
    ceiling = replace(common, strategy="centralised", rounds=_CEILING_EPOCHS, local_augment=True)
    return [
        *found,
        Way("distilled by dm, few bits", (distilled,), 3),
        Way(
            f"FedAvg in 8 bits, {asked.rounds} rounds",
            tuple(replace(averaged, local_learning_rate=rate) for rate in _FEDAVG_RATES),
            4,
        ),
        Way(
            "all data in one place", tuple(replace(ceiling, local_learning_rate=one) for one in _FEDAVG_RATES), 5, True
        ),
    ]


def try_ways(
    asked: AdviceSettings, results: Path, watcher: Watcher | None = None, workers: int = 1
) -> tuple[list[Tried], Failures]:
    """Run what ``results`` does not hold yet; ways of which every run failed are left out, and told by the failures."""
    known, failures = ways(asked), Failures()
    runs = [Run(Kind.FEDERATED, one) for way in known for one in way.runs]
    compare(runs, results, watcher or Silent(), workers, failures=failures)
    records = {record["key"]: record for record in read_records(results)}
    tried = [_best(way, records, asked.clients) for way in known]
    return [one for one in tried if one is not None], failures


def count_held_out(asked: AdviceSettings) -> int:
    """Samples that everything is judged on."""
    return len(central_test_data(ways(asked)[-1].runs[0]))  # the ceiling's, which need no backbone


def advice(tried: Sequence[Tried], held_out: int, budget: int) -> str:
    """The way to take, and why, in a few sentences.

    Of the ways within ``budget`` bytes a client, those whose accuracy is within chance of the best are level (one
    standard error of the difference on ``held_out`` samples). Among these the one that needs least beside bytes, then
    the one of fewer bytes.

    Raises:
        SettingsError: nothing that fits was tried.
    """
    within = [one for one in tried if one.way.fits(one.bytes_per_client, budget)]
    if not within:
        raise SettingsError(f"nothing that fits into {budget} bytes could be tried")
    best = max(within, key=lambda one: one.accuracy)
    error = math.sqrt(2 * best.accuracy * (1 - best.accuracy) / max(held_out, 1))
    level = [one for one in within if one.accuracy >= best.accuracy - error]
    chosen = min(level, key=lambda one: (one.way.effort, one.bytes_per_client))
    said = [f"Take {chosen.way.label}: {chosen.accuracy:.1%} for {byte_size(chosen.bytes_per_client)} a client."]
    if chosen is not best:
        said.append(f"{best.way.label} has {best.accuracy:.1%}, which {held_out:,} samples do not tell apart.")
    if chosen.way.sends_real_samples:
        said.append("These are real samples: not private.")
    beyond = [one for one in tried if one not in within and not one.way.ceiling and one.accuracy > chosen.accuracy]
    for one in beyond:
        times = one.bytes_per_client / chosen.bytes_per_client
        said.append(f"With {times:.0f} times the bytes, {one.way.label} has {one.accuracy:.1%}.")
    return " ".join(said)


def _best(way: Way, records: Mapping[str, Record], clients: int) -> Tried | None:
    own = [records[key] for key in (Run(Kind.FEDERATED, one).key for one in way.runs) if key in records]
    if not own:
        return None
    best = max(own, key=lambda record: float(record["metrics"]["accuracy"] or 0.0))
    metrics = best["metrics"]
    return Tried(
        way,
        float(metrics["accuracy"] or 0.0),
        (metrics["bytes_up"] + metrics["bytes_down"]) / clients,
        metrics["client_seconds"] + metrics["server_seconds"],
    )
