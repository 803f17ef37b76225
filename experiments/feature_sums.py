"""What a federation with a frozen backbone should send: accuracy against the bytes of all clients, one round.

    python experiments/feature_sums.py --data cifar10 --train-limit 10000 --test-limit 5000 --cache features/

prints a Markdown table: what each client sends, how many kB that is for all clients together, and the test accuracy
of the head that the server makes of it, mean and deviation over seeds (of the partition). FedAvg trains the same linear
head for 20 rounds; its rate is chosen on a tenth of the training data that no client gets.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill import LabelledData, load_data
from fedcl_distill.data import partition
from fedcl_distill.features import (
    BACKBONES,
    LDA,
    FeatureSums,
    Head,
    Logistic,
    NaiveBayes,
    NearestMean,
    Ridge,
    SumHead,
    decode_sums,
    encode_sums,
    measure,
)
from fedcl_distill.seeding import generator_for
from fedcl_distill.selection import Herding, k_means, select

Clients = Sequence[LabelledData]


@dataclass(frozen=True)
class Row:
    """One way to make a head: from the clients' features to the head and the bytes that were sent."""

    name: str
    make: Callable[[Clients, int], tuple[Head, int]]


def of_sums(
    storage: str, bits: int, head: SumHead, *, second_bits: int | None = None
) -> Callable[[Clients, int], tuple[Head, int]]:
    """Sums of each client through the codec, added up."""

    def make(clients: Clients, seed: int) -> tuple[Head, int]:
        payloads = [
            encode_sums(measure(one.samples, one.labels, one.class_names, storage), bits, second_bits=second_bits)
            for one in clients
        ]
        return head.fit(_added(payloads, clients[0])), sum(map(len, payloads))

    return make


def of_projected(count: int, bits: int, head: SumHead) -> Callable[[Clients, int], tuple[Head, int]]:
    """Whole matrices behind a random projection that all share."""

    def make(clients: Clients, seed: int) -> tuple[Head, int]:
        size = clients[0].sample_shape[0]
        matrix = torch.randn(size, count, generator=generator_for(0, "projection"), dtype=torch.float64) / count**0.5
        payloads = [
            encode_sums(measure(one.samples.double() @ matrix, one.labels, one.class_names, "full"), bits)
            for one in clients
        ]
        sums = [decode_sums(payload, clients[0].class_names, count) for payload in payloads]
        fitted = head.fit(_sum(sums))
        lifted = Head((matrix @ fitted.weight.double().T).T.float(), fitted.bias, fitted.class_names)
        return lifted, sum(map(len, payloads))

    return make


def of_centres(per_class: int, bits: int) -> Callable[[Clients, int], tuple[Head, int]]:
    """Cluster centres of each class with their counts; the head is LDA on weighted centres."""

    def make(clients: Clients, seed: int) -> tuple[Head, int]:
        vectors, labels, weights, sent = [], [], [], 0
        for one in clients:
            for label in torch.nonzero(one.class_counts).flatten().tolist():
                rows = one.samples[one.indices_of(label)]
                count = min(per_class, len(rows))
                order = torch.randperm(len(rows), generator=generator_for(seed, "centres", label))
                centres = k_means(rows, rows[order[:count]], 50)
                nearest = torch.cdist(rows, centres).argmin(dim=1)
                sizes = torch.bincount(nearest, minlength=count)
                kept = sizes > 0
                vectors.append(_rounded(centres[kept], bits))
                weights.append(sizes[kept])
                labels.append(torch.full((int(kept.sum()),), label))
                sent += int(kept.sum()) * (rows.shape[1] * bits // 8 + 4 + 2)  # codes, scale, count
        sums = measure(
            torch.cat(vectors), torch.cat(labels), clients[0].class_names, weights=torch.cat(weights).float()
        )
        return LDA().fit(sums), sent

    return make


def of_real(per_class: int, bits: int) -> Callable[[Clients, int], tuple[Head, int]]:
    """Real feature vectors by herding; the head is logistic regression."""

    def make(clients: Clients, seed: int) -> tuple[Head, int]:
        vectors, labels, sent = [], [], 0
        for one in clients:
            counts = one.class_counts.clamp(max=per_class).tolist()
            chosen = select(one, counts, Herding(), seed=seed)
            vectors.append(_rounded(one.samples[chosen], bits))
            labels.append(one.labels[chosen])
            sent += len(chosen) * (one.sample_shape[0] * bits // 8 + 4)
        return Logistic().fit_samples(torch.cat(vectors), torch.cat(labels), clients[0].class_names), sent

    return make


def fedavg(rounds: int, rates: Sequence[float]) -> Callable[[Clients, int], tuple[Head, int]]:
    """FedAvg of the linear head (McMahan et al. 2017), one local epoch of batches of 32, its rate chosen held out."""

    def make(clients: Clients, seed: int) -> tuple[Head, int]:
        split = [
            torch.randperm(len(one), generator=generator_for(seed, "held out", place))
            for place, one in enumerate(clients)
        ]
        held = [one.subset(order[: len(order) // 10]) for one, order in zip(clients, split, strict=True)]
        kept = [one.subset(order[len(order) // 10 :]) for one, order in zip(clients, split, strict=True)]
        features, labels = torch.cat([one.samples for one in held]), torch.cat([one.labels for one in held])
        best = max(rates, key=lambda rate: _fedavg(kept, rounds, rate, seed).accuracy(features, labels))
        head = _fedavg(clients, rounds, best, seed)
        return head, 2 * rounds * len(clients) * 4 * (head.weight.numel() + head.bias.numel())

    return make


def everything(clients: Clients, seed: int) -> tuple[Head, int]:
    """Logistic regression on all features, sent as they are: the ceiling."""
    features, labels = torch.cat([one.samples for one in clients]), torch.cat([one.labels for one in clients])
    return Logistic().fit_samples(features, labels, clients[0].class_names), 4 * features.numel()


ROWS = (
    Row("class means, 4 bits, nearest mean (FedNCM)", of_sums("means", 4, NearestMean())),
    Row("means and 4 scatter vectors, 4 bits, LDA", of_sums("low-rank:rank=4", 4, LDA())),
    Row("means and 8 scatter vectors, 4 bits, LDA", of_sums("low-rank:rank=8", 4, LDA())),
    Row("means and 16 scatter vectors, 4 bits, LDA", of_sums("low-rank:rank=16", 4, LDA())),
    Row("means in 8 bits and 32 scatter vectors in 4, LDA", of_sums("low-rank:rank=32", 8, LDA(), second_bits=4)),
    Row("variances of each class, 8 bits, naive Bayes", of_sums("diagonal", 8, NaiveBayes())),
    Row("variances of each class, 8 bits, draws (FedPFT)", of_sums("diagonal", 8, Logistic())),
    Row("5 cluster centres a class, 4 bits, LDA", of_centres(5, 4)),
    Row("10 cluster centres a class, 4 bits, LDA", of_centres(10, 4)),
    Row("10 real vectors a class, 8 bits (herding)", of_real(10, 8)),
    Row("projected to 128, 8 bits, LDA", of_projected(128, 8, LDA())),
    Row("projected to 256, 8 bits, LDA", of_projected(256, 8, LDA())),
    Row("whole matrix, 4 bits, LDA", of_sums("full", 8, LDA(), second_bits=4)),
    Row("whole matrix, 8 bits, LDA", of_sums("full", 8, LDA())),
    Row("whole matrix, 32 bits, LDA (FedCGS)", of_sums("full", 32, LDA())),
    Row("whole matrix, 32 bits, ridge (Fed3R, AFL)", of_sums("full", 32, Ridge())),
    Row("FedAvg of the head, 20 rounds, tuned", fedavg(20, (1.0, 3.0, 10.0, 30.0))),
    Row("all features, logistic regression", everything),
)


def _added(payloads: Sequence[bytes], like: LabelledData) -> FeatureSums:
    return _sum([decode_sums(payload, like.class_names, like.sample_shape[0]) for payload in payloads])


def _sum(parts: Sequence[FeatureSums]) -> FeatureSums:
    first, *others = parts
    return sum(others, first)


def _rounded(rows: Tensor, bits: int) -> Tensor:
    """Every row on a scale of its own, as the codec of sums rounds them."""
    half = 2 ** (bits - 1) - 1
    scale = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
    return (rows / scale * half).round() * (scale / half)


def _fedavg(clients: Clients, rounds: int, rate: float, seed: int) -> Head:
    classes, size = clients[0].num_classes, clients[0].sample_shape[0]
    weight, bias = torch.zeros(classes, size), torch.zeros(classes)
    total = sum(map(len, clients))
    for number in range(rounds):
        sums = [torch.zeros_like(weight), torch.zeros_like(bias)]
        for place, one in enumerate(clients):
            w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
            order = torch.randperm(len(one), generator=generator_for(seed, "order", number, place))
            for rows in torch.split(order, 32):
                loss = F.cross_entropy(one.samples[rows] @ w.T + b, one.labels[rows])
                gradients = torch.autograd.grad(loss, (w, b))
                with torch.no_grad():
                    w -= rate * gradients[0]
                    b -= rate * gradients[1]
            share = len(one) / total
            sums = [sums[0] + share * w.detach(), sums[1] + share * b.detach()]
        weight, bias = sums
    return Head(weight, bias, clients[0].class_names)


def _limited(data: LabelledData, limit: int | None, seed: int) -> LabelledData:
    if limit is None or limit >= len(data):
        return data
    order = torch.randperm(len(data), generator=generator_for(seed, "limit"))
    return data.subset(order[:limit].sort().values)


def results(
    rows: Sequence[Row], train: LabelledData, test: LabelledData, how: str, clients: int, seeds: Sequence[int]
) -> Iterator[tuple[str, float, list[float]]]:
    """Name, mean kB and accuracies of each row."""
    parts = {seed: partition(train, how, clients=clients, seed=seed) for seed in seeds}
    for row in rows:
        made = [row.make(parts[seed], seed) for seed in seeds]
        accuracies = [100 * head.accuracy(test.samples, test.labels) for head, _ in made]
        yield row.name, statistics.fmean(sent for _, sent in made) / 1000, accuracies


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--root")
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--train-limit", type=int)
    parser.add_argument("--test-limit", type=int)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--partition", default="dirichlet:0.1")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--cache", default="runs/features")
    parser.add_argument("--rows", default="", help="only rows whose name holds this text")
    given = parser.parse_args()
    splits, backbone = load_data(given.data, root=given.root), BACKBONES.build(given.backbone)
    train, test = _limited(splits.train, given.train_limit, 0), _limited(splits.test, given.test_limit, 0)
    train, test = (backbone.features(one, cache=given.cache) for one in (train, test))
    seeds = [int(seed) for seed in given.seeds.split(",")]
    sizes = f"{len(train)} training and {len(test)} test samples, {train.sample_shape[0]} features"
    print(f"{given.data}, {sizes} of {given.backbone};")
    print(f"{given.clients} clients, {given.partition}, seeds {given.seeds}\n")
    print("| what is sent | kB | accuracy, % |\n|---|---:|---|")
    rows = [row for row in ROWS if given.rows in row.name]
    for name, kilobytes, found in results(rows, train, test, given.partition, given.clients, seeds):
        spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
        print(f"| {name} | {kilobytes:,.0f} | {statistics.fmean(found):.1f}{spread} |", flush=True)


if __name__ == "__main__":
    main()
