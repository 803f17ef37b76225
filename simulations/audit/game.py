"""The membership game (Yeom et al. 2018; Carlini et al. 2022): who was in, and who was not?

Every candidate is a member of a release by a fair coin of its own, so that members and others have one distribution,
and so that the coins are independent, as bounds of ε from a single release need (Steinke et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedcl_distill.data import LabelledData, Splits
from fedcl_distill.errors import DataError
from fedcl_distill.seeding import generator_for
from simulations.scenarios.data import load_splits

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
