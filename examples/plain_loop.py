"""A memory in a plain PyTorch loop: no Avalanche, no Flower, a model and an optimiser of one's own.

Run: python examples/plain_loop.py
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from fedcl_distill import Budget, build_method, load_data
from strategies.continual import DistilledMemory, ReplayBuffer


def make_model() -> nn.Module:
    """Any network will do; here, one without anything of this package."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def main() -> float:
    """Learn ten digits, two at a time; return the accuracy on all of them."""
    torch.manual_seed(0)
    data = load_data("digits")
    model = make_model()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.003)
    distiller = build_method("dm", architecture=make_model, augmentation="none", steps_per_network=5)
    buffer = ReplayBuffer(DistilledMemory(2_000, distiller=distiller, budget=Budget(steps=50)), data.train.spec)

    for task in range(5):
        rows = torch.isin(data.train.labels, torch.tensor([2 * task, 2 * task + 1])).nonzero().flatten()
        part = data.train.subset(rows)
        inputs, labels = part.inputs(), part.labels
        for _ in range(10):
            for batch in DataLoader(range(len(part)), batch_size=32, shuffle=True):  # type: ignore[arg-type]
                loss = F.cross_entropy(model(inputs[batch]), labels[batch])
                if not buffer.is_empty():
                    remembered, old_labels, _tasks = buffer.get_data(32)
                    loss = loss + F.cross_entropy(model(remembered), old_labels)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        buffer.add_data(inputs, labels)  # distils the task, and all that is held once more
        print(f"task {task}: {len(buffer)} samples in {buffer.bytes_kept:,} bytes")

    with torch.no_grad():
        accuracy = float((model(data.test.inputs()).argmax(dim=1) == data.test.labels).float().mean())
    print(f"accuracy on all ten digits: {100 * accuracy:.1f} %")
    return accuracy


if __name__ == "__main__":
    main()
    assert "avalanche" not in sys.modules
