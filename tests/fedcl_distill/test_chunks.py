"""Truth: the whole batch at once."""

import pytest
import torch
from torch.nn import functional as F

from fedcl_distill.networks import Architecture
from fedcl_distill.networks.base import micro_batch_size, micro_batches


def test_chunks_cover_everything_once_and_stay_small() -> None:
    inputs, labels = torch.arange(100 * 784.0).view(100, 1, 28, 28), torch.arange(100)
    parts = micro_batches(inputs, labels)
    assert len(parts) > 1
    assert torch.equal(torch.cat([part for part, _ in parts]), inputs)
    assert torch.equal(torch.cat([part for _, part in parts]), labels)
    assert max(len(part) for part, _ in parts) == micro_batch_size(inputs) == 41


def test_small_samples_go_together() -> None:
    assert len(micro_batches(torch.zeros(400, 1, 8, 8))) == 1
    assert len(micro_batches(torch.zeros(2000, 13))) == 1
    assert micro_batch_size(torch.zeros(5, 3, 256, 256)) == 16


@pytest.mark.parametrize("name", ["convnet:width=8", "resnet18:width=4", "lenet"])
def test_gradients_of_chunks_add_up_to_the_whole(name: str) -> None:
    inputs, labels = torch.randn(90, 1, 28, 28), torch.randint(0, 3, (90,))
    network = Architecture.parse(name).build((1, 28, 28), 3, seed=0).double()
    inputs = inputs.double()
    F.cross_entropy(network(inputs), labels).backward()
    whole = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    for part, targets in micro_batches(inputs, labels):
        (F.cross_entropy(network(part), targets, reduction="sum") / 90).backward()
    for parameter, expected in zip(network.parameters(), whole, strict=True):
        torch.testing.assert_close(parameter.grad, expected)
