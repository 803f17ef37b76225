"""Label skew with a fixed number of classes a client."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.data.partition.base import by_client, check_partition, check_request, shuffled
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.seeding import generator_for


@dataclass(frozen=True)
class ClassesPerClient:
    """Give every client exactly ``classes`` classes, and every class to someone.

    The pathological partition of McMahan et al. (2017), section 3, with classes instead of shards: frequent
    classes get more holders, so that clients are alike in size; the holders of a class share it evenly.

    Attributes:
        classes: how many classes each client holds, at least 1.
    """

    classes: int

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise SettingsError(f"classes must be at least 1, got {self.classes}")

    def split(self, data: LabelledData, clients: int, *, seed: int, min_size: int = 1) -> list[Tensor]:
        check_request(data, clients, min_size)
        generator = generator_for(seed, "partition", "classes")
        holders = _holders(_holder_counts(data, clients, self.classes), clients, self.classes, generator)
        owner = torch.empty(len(data), dtype=torch.int64)
        for label in range(data.num_classes):
            members = shuffled(data.indices_of(label), generator)
            clients_of_label = shuffled(holders[:, label].nonzero().flatten(), generator)
            for client, piece in zip(
                clients_of_label.tolist(), members.tensor_split(max(1, len(clients_of_label))), strict=False
            ):
                owner[piece] = client
        parts = by_client(owner, clients)
        check_partition(parts, data, clients, min_size)
        return parts


def _holder_counts(data: LabelledData, clients: int, classes: int) -> Tensor:
    """Return how many clients hold each class, int64 (classes of the data,), in proportion to the classes.

    By D'Hondt's rule: each present class gets one holder, each further one goes to the class whose pieces are
    largest.
    """
    counts = data.class_counts
    present = int((counts > 0).sum())
    if classes > present:
        raise DataError(f"{data.name}: has samples of {present} classes, clients cannot hold {classes} each")
    if clients * classes < present:
        raise DataError(
            f"{data.name}: {clients} clients of {classes} classes cannot cover {present} classes; "
            f"take at least {-(-present // classes)} clients or {-(-present // clients)} classes each"
        )
    most = counts.clamp_max(clients)
    if int(most.sum()) < clients * classes:
        raise DataError(f"{data.name}: has too few samples for {clients} clients of {classes} classes each")
    holders = (counts > 0).long()
    for _ in range(clients * classes - present):
        piece = torch.where(holders < most, counts / holders.clamp_min(1), -1.0)
        holders[piece.argmax()] += 1
    return holders


def _holders(counts: Tensor, clients: int, classes: int, generator: torch.Generator) -> Tensor:
    """Draw which client holds which class: bool (clients, classes of the data), rows and columns sum as
    asked.

    Each client takes the classes that still need most holders, ties at random. That never runs into a dead
    end: it is the construction in the proof of the Gale-Ryser theorem.
    """
    needed = counts.clone()
    chosen = torch.zeros(clients, len(counts), dtype=torch.bool)
    for client in torch.randperm(clients, generator=generator).tolist():
        ties = torch.rand(len(counts), generator=generator, dtype=torch.float64)
        picks = (needed + ties).topk(classes).indices
        chosen[client, picks] = True
        needed[picks] -= 1
    return chosen
