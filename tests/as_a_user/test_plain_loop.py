"""A memory in loops that are no Avalanche's: a plain one, and one that was written for mammoth's buffer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fedcl_distill import Budget, build_method, load_data
from fedcl_distill.errors import DataError, SettingsError
from strategies.continual import DistilledMemory, ReplayBuffer, ReservoirMemory

EXAMPLE = Path(__file__).parents[2] / "examples" / "plain_loop.py"


def test_the_example_remembers_digits_without_avalanche():
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert float(told[-1].split()[-2]) > 75, "without a memory it is 20 %"
    assert all(int(line.split()[-2].replace(",", "")) <= 2_000 for line in told[:-1])


def _stream(tasks=3, size=60):
    generator = torch.Generator().manual_seed(0)
    for task in range(tasks):
        labels = torch.arange(size) % 2
        yield torch.randn(size, 1, 8, 8, generator=generator) + 3 * task, labels, task


def test_samples_come_back_with_their_label_logits_and_task():
    """Truth: each sample's mean is near three times its task, and its logits were made from its values."""
    buffer = ReplayBuffer(ReservoirMemory(4_000))
    for images, labels, task in _stream():
        logits = torch.stack([images.flatten(1).mean(dim=1), labels.float()], dim=1)
        buffer.add_data(images, labels, logits=logits, task_labels=task)
    images, labels, logits, tasks = buffer.get_data(200)
    assert sorted(set(tasks.tolist())) == [0, 1, 2]
    assert torch.equal((images.flatten(1).mean(dim=1) / 3).round().long(), tasks)
    torch.testing.assert_close(logits[:, 0], images.flatten(1).mean(dim=1), atol=0.1, rtol=0)
    assert torch.equal(logits[:, 1].round().long(), labels)
    assert buffer.memory.bytes_kept <= 4_000 < buffer.bytes_kept, "logits count beside the memory"


def test_a_buffer_goes_on_from_its_state_to_the_same_draws():
    buffers = [ReplayBuffer(ReservoirMemory(4_000, seed=5), seed=3) for _ in range(2)]
    for number, (images, labels, task) in enumerate(_stream()):
        buffers[0].add_data(images, labels, task_labels=task)
        if number == 1:
            buffers[1].restore(buffers[0].state())
        if number == 2:
            buffers[1].add_data(images, labels, task_labels=task)
    for ours, theirs in zip(buffers[0].get_data(50), buffers[1].get_data(50), strict=True):
        assert torch.equal(ours, theirs)


def test_the_same_label_in_two_tasks_stays_two_classes_also_when_distilled():
    memory = DistilledMemory(
        3_000, distiller=build_method("dm", architecture="mlp:width=16", augmentation="none"), budget=Budget(steps=3)
    )
    buffer = ReplayBuffer(memory)
    for images, labels, task in _stream():
        buffer.add_data(images, labels, task_labels=task)
    held = buffer.everything()
    assert torch.equal((held.inputs.flatten(1).mean(dim=1) / 3).round().long(), held.tasks)
    assert set(held.labels.tolist()) == {0, 1}


def test_what_a_buffer_cannot_give_back_is_refused():
    images, labels, _ = next(_stream())
    with pytest.raises(DataError, match="nothing is remembered"):
        ReplayBuffer(ReservoirMemory(2_000)).get_data(1)
    distilled = DistilledMemory(3_000, distiller=build_method("dm", architecture="mlp:width=8"), budget=Budget(steps=3))
    with pytest.raises(SettingsError, match="makes its own"):
        ReplayBuffer(distilled).add_data(images, labels, logits=torch.zeros(60, 2))
    buffer = ReplayBuffer(ReservoirMemory(2_000))
    buffer.add_data(images, labels)
    with pytest.raises(DataError, match="every sample or with none"):
        buffer.add_data(images, labels, logits=torch.zeros(60, 2))


def test_known_pixels_are_kept_as_pixels():
    data = load_data("digits").train.subset(torch.arange(200))
    buffer = ReplayBuffer(ReservoirMemory(3_000), data.spec)
    buffer.add_data(data.inputs(), data.labels)
    images, labels, _ = buffer.get_data(40)
    distance, nearest = torch.cdist(images.flatten(1), data.inputs().flatten(1)).min(dim=1)
    assert distance.max() < 0.05
    assert torch.equal(data.labels[nearest], labels)
