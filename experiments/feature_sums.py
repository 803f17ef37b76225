"""What a federation with a frozen backbone should send: accuracy against the bytes that all clients send up.

    python experiments/feature_sums.py run --data cifar10 --partition dirichlet:0.1
    python experiments/feature_sums.py table

``run`` appends one line for each way to make a head and each seed to ``experiments/feature-sums.jsonl``; what is there
is not run again. ``table`` renders these lines as Markdown. Seeds are those of the partition and of all draws. FedAvg
and FedProx train the same linear head by the strategies of this package, 20 rounds of one epoch; their rate is chosen
on a tenth of each client's training data (of seed 0's partition) that takes no part, once for each data set and
partition.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from feature_sets import feature_set

from fedcl_distill import Budget, LabelledData, build_method, decode, encode
from fedcl_distill.data import partition
from fedcl_distill.features import (
    LDA,
    Head,
    Logistic,
    NaiveBayes,
    NearestMean,
    Ridge,
    SumHead,
    decode_sums,
    encode_sums,
    measure,
    measure_data,
)
from fedcl_distill.seeding import generator_for
from fedcl_distill.synthetic import SyntheticSet
from simulations.scenarios.federated import quiet_flower
from strategies.federated import (
    FedAvg,
    FederatedFeatures,
    FederatedStrategy,
    FedProx,
    InProcessGrid,
    LocalTraining,
    make_client_app,
    run_server,
)

Clients = Sequence[LabelledData]
Made = tuple[Head, int]
RATES = (1.0, 3.0, 10.0, 30.0)
FINE_RATES = (0.03, 0.3, 3.0)
RESULTS = Path(__file__).parent / "feature-sums.jsonl"


@dataclass(frozen=True)
class Run:
    """One cell.

    Attributes:
        clients: features of each client.
        seed: of the partition.
        rate: the tuned rate of a row that has one.
    """

    clients: Clients
    seed: int
    rate: float = 0.0


@dataclass(frozen=True)
class Row:
    """One way to make a head: the head, and the bytes that all clients sent up.

    Attributes:
        name: in tables.
        make: does it.
        rates: to choose from; none for what has no rate.
    """

    name: str
    make: Callable[[Run], Made]
    rates: tuple[float, ...] = ()


def of_sums(storage: str, bits: int, head: SumHead, second_bits: int | None = None) -> Callable[[Run], Made]:
    """Sums of each client through the codec, added up."""

    def make(run: Run) -> Made:
        like = run.clients[0]
        payloads = [encode_sums(measure_data(one, storage), bits, second_bits=second_bits) for one in run.clients]
        first, *others = (
            decode_sums(one, like.class_names, like.sample_shape[0], like.spec.backbone) for one in payloads
        )
        return head.fit(sum(others, first)), sum(map(len, payloads))

    return make


def of_vectors(
    method: str, per_class: int, bits: int, head: SumHead | Logistic, **settings: Any
) -> Callable[[Run], Made]:
    """Real or distilled vectors of each client as an encoded set; the head is fitted to their union."""

    def make(run: Run) -> Made:
        payloads = [
            encode(_vectors(one, run.seed, method, per_class, settings), bits, provenance=False) for one in run.clients
        ]
        sets = [decode(one) for one in payloads]
        features, labels = torch.cat([one.samples() for one in sets]), torch.cat([one.labels for one in sets])
        names = run.clients[0].class_names
        if isinstance(head, Logistic):
            return head.fit_samples(features, labels, names), sum(map(len, payloads))
        return head.fit(measure(features, labels, names)), sum(map(len, payloads))

    return make


def of_rounds(
    strategy: Callable[[LocalTraining], FederatedStrategy], rounds: int, first: str = ""
) -> Callable[[Run], Made]:
    """Rounds of a strategy that trains the linear head, from nothing or from the head of the storage ``first``."""

    def make(run: Run) -> Made:
        local = LocalTraining(learning_rate=run.rate, momentum=0.0, weight_decay=0.0)
        test = run.clients[0].subset(torch.arange(1))
        app = make_client_app(lambda context: run.clients[int(context.node_config["partition-id"])])
        options: dict[str, Any] = {"test": test, "clients": len(run.clients), "seed": run.seed, "network": "linear"}
        sent, initial = 0, None
        with quiet_flower(), InProcessGrid(app, nodes=len(run.clients)) as grid:
            if first:
                once = run_server(grid, FederatedFeatures(first), **options)
                sent, initial = once.rounds[-1].bytes_up, once.weights
            result = run_server(grid, strategy(local), rounds=rounds, initial=initial, **options)
        weights = {name: torch.from_numpy(array.numpy()) for name, array in result.weights.items()}
        head = Head(weights["classifier.weight"], weights["classifier.bias"], test.class_names)
        return head, sent + result.rounds[-1].bytes_up

    return make


def everything(run: Run) -> Made:
    """Logistic regression on all features, sent as they are: the ceiling."""
    features, labels = _together(run.clients)
    return Logistic().fit_samples(features, labels, run.clients[0].class_names), 4 * features.numel()


ROWS = (
    Row("class means, 4 bits, nearest mean (FedNCM)", of_sums("means", 4, NearestMean())),
    Row("means and 4 directions, 4 bits, LDA", of_sums("low-rank:rank=4", 4, LDA())),
    Row("means and 8 directions, 4 bits, LDA", of_sums("low-rank:rank=8", 4, LDA())),
    Row("means and 16 directions, 4 bits, LDA", of_sums("low-rank:rank=16", 4, LDA())),
    Row("means in 8 bits and 32 directions in 4, LDA", of_sums("low-rank:rank=32", 8, LDA(), 4)),
    Row("2 cluster centres a class, 4 bits, LDA", of_sums("centres:per_class=2", 4, LDA())),
    Row("5 cluster centres a class, 4 bits, LDA", of_sums("centres:per_class=5", 4, LDA())),
    Row("10 cluster centres a class, 4 bits, LDA", of_sums("centres:per_class=10", 4, LDA())),
    Row("5 cluster centres a class, 4 bits, logistic", of_sums("centres:per_class=5", 4, Logistic())),
    Row("variances of each class, 8 bits, naive Bayes", of_sums("diagonal", 8, NaiveBayes())),
    Row("variances of each class, 8 bits, draws (FedPFT)", of_sums("diagonal", 8, Logistic())),
    Row("projected to 128, 8 bits, LDA", of_sums("projected:dimensions=128", 8, LDA())),
    Row("projected to 256, 8 bits, LDA", of_sums("projected:dimensions=256", 8, LDA())),
    Row("whole matrix, 8 bits, LDA", of_sums("full", 8, LDA())),
    Row("whole matrix, 32 bits, LDA (FedCGS)", of_sums("full", 32, LDA())),
    Row("whole matrix, 32 bits, ridge (Fed3R)", of_sums("full", 32, Ridge())),
    Row("whole matrix, 32 bits, least squares (AFL)", of_sums("full", 32, Ridge(1e-6))),
    Row("10 real vectors a class, herding, 8 bits, logistic", of_vectors("herding", 10, 8, Logistic())),
    Row("10 real vectors a class, random, 8 bits, logistic", of_vectors("random", 10, 8, Logistic())),
    Row(
        "1 distilled vector a class, kip, 4 bits, ridge",
        of_vectors("kip", 1, 4, Ridge(), kernel_depth=0, init="kmeans"),
    ),
    Row("FedAvg of the head, 20 rounds, tuned", of_rounds(FedAvg, 20), RATES),
    Row(
        "FedProx of the head (mu 0.1), 20 rounds, tuned",
        of_rounds(lambda local: FedProx(mu=0.1, local=local), 20),
        RATES,
    ),
    Row("FedAvg of the head, 3 rounds, tuned", of_rounds(FedAvg, 3), RATES),
    Row("8 directions once, then 3 rounds of FedAvg, tuned", of_rounds(FedAvg, 3, "low-rank:rank=8"), FINE_RATES),
    Row("all features, logistic regression", everything),
)


def cells(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Lines that are not there yet, as they are done."""
    train, test = feature_set(given.data, root=given.root, cache=given.cache)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    clients = len(train.group_names) if given.partition == "natural" else given.clients
    parts = {seed: partition(train, given.partition, clients=clients, seed=seed) for seed in {0, *seeds}}
    known = list(read(given.out))
    facts = {"data": given.data, "partition": given.partition, "clients": clients}
    for row in (row for row in ROWS if given.rows in row.name):
        missing = [seed for seed in seeds if not found_in(known, {**facts, "row": row.name, "seed": seed})]
        if not missing:
            continue
        rate = tuned(row, parts[0]) if row.rates else 0.0
        for seed in missing:
            started = time.process_time()
            head, sent = row.make(Run(parts[seed], seed, rate))
            seconds = time.process_time() - started
            accuracy = head.accuracy(test.samples, test.labels)
            found = {"bytes": sent, "accuracy": round(accuracy, 5), "cpu_seconds": round(seconds, 2)}
            yield {**facts, "row": row.name, "seed": seed, **found} | ({"rate": rate} if rate else {})


def tuned(row: Row, clients: Clients) -> float:
    """The rate of the best head on a tenth of each client's data that takes no part."""
    orders = [torch.randperm(len(one), generator=generator_for(0, "held out", at)) for at, one in enumerate(clients)]
    held = [one.subset(order[: len(one) // 10]) for one, order in zip(clients, orders, strict=True)]
    kept = [one.subset(order[len(one) // 10 :]) for one, order in zip(clients, orders, strict=True)]
    features, labels = _together(held)
    return max(row.rates, key=lambda rate: row.make(Run(kept, 0, rate))[0].accuracy(features, labels))


def table(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    """One Markdown table for each data set: a row each way, two columns each partition."""
    for data in dict.fromkeys(line["data"] for line in lines):
        own = [line for line in lines if line["data"] == data]
        ways = list(dict.fromkeys(line["partition"] for line in own))
        seeds = len({line["seed"] for line in own})
        yield f"\n**{data}**, {own[0]['clients']} clients, {seeds} seeds\n"
        yield "| what is sent | " + " | ".join(f"{way}: kB | %" for way in ways) + " |"
        yield "|---|" + "---:|---:|" * len(ways)
        for row in (one.name for one in ROWS if found_in(own, {"row": one.name})):
            yield f"| {row} | " + " | ".join(_cell(own, row, way) for way in ways) + " |"


def _cell(lines: Sequence[dict[str, Any]], row: str, way: str) -> str:
    found = found_in(lines, {"row": row, "partition": way})
    if not found:
        return "|"
    accuracies = [100 * line["accuracy"] for line in found]
    spread = f" ± {statistics.stdev(accuracies):.1f}" if len(found) > 1 else ""
    return (
        f"{statistics.fmean(line['bytes'] for line in found) / 1000:,.0f} | {statistics.fmean(accuracies):.1f}{spread}"
    )


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines that are there."""
    if path.exists():
        yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


def found_in(lines: Sequence[dict[str, Any]], facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines that hold all of ``facts``."""
    return [line for line in lines if all(line[name] == value for name, value in facts.items())]


def _vectors(data: LabelledData, seed: int, method: str, per_class: int, settings: dict[str, Any]) -> SyntheticSet:
    budget = Budget(steps=200) if method == "kip" else None
    distiller = build_method(method, **settings)
    made = distiller.distil(data, per_class, seed=seed, budget=budget, absent_classes="skip")
    return made


def _together(parts: Clients) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([one.samples for one in parts]), torch.cat([one.labels for one in parts])


def main() -> None:
    """Run cells, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--root")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--partition", default="dirichlet:0.1")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--cache", default="runs/features")
    parser.add_argument("--rows", default="", help="only rows whose name holds this text")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.what == "table":
        print("\n".join(table(list(read(given.out)))))
        return
    for line in cells(given):
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{line['row']}: {line['bytes'] / 1000:,.0f} kB, {100 * line['accuracy']:.1f} %", flush=True)


if __name__ == "__main__":
    main()
