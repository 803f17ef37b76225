"""What a set is worth in a training loop that is not ours: Adam, batches of 16, a network as anybody writes it.

    python experiments/strangers_loop.py --out runs/strangers-loop.jsonl
    python experiments/strangers_loop.py --out runs/strangers-loop.jsonl --table

For each method, a set of ten digits a class is judged four ways on the same test data: by our loop, by the stranger's
loop on ``synthetic.dataset()``, by that loop in the stranger's own normalisation (``dataset(transform=…)``), and by
that loop with samples and test data in different spaces, the mistake that this table is to warn of. Lines that the
file holds already are not computed again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fedcl_distill import Budget, LabelledData, SyntheticSet, build_method, evaluate, list_methods, load_data
from fedcl_distill.errors import FedclDistillError
from fedcl_distill.files import append_line
from fedcl_distill.methods import known_settings
from fedcl_distill.training import FAST

EPOCHS, BATCH, RATE = 60, 16, 1e-3
NETWORK = "convnet:width=32"


def train_and_test(train: Dataset, test_inputs: Tensor, test_labels: Tensor, seed: int) -> float:
    """Accuracy of a plain CNN after a plain loop. Global seeds on purpose: so people write it."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        *(nn.Conv2d(test_inputs.shape[1], 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.LazyLinear(10)),
    )
    network(test_inputs[:1])  # makes the lazy layer
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    for _ in range(EPOCHS):
        for images, labels in DataLoader(train, batch_size=BATCH, shuffle=True):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimiser.step()
    with torch.no_grad():
        return float((network(test_inputs).argmax(dim=1) == test_labels).double().mean())


def judge(synthetic: SyntheticSet, test: LabelledData, seeds: int) -> dict[str, list[float]]:
    """Accuracies in [0, 1], one a seed, by each way of training."""
    own = test.with_spec(normalisation=synthetic.normalisation).inputs()
    half = (test.unit() - 0.5) / 0.5
    stranger = {
        "stranger": (synthetic.dataset(), own),
        "own normalisation": (synthetic.dataset(transform=lambda image: (image - 0.5) / 0.5), half),
        "mixed spaces": (synthetic.dataset(), half),
    }
    ours = evaluate(synthetic, test, FAST, seed=0, architecture=NETWORK, networks=seeds).accuracies
    found = {"ours": list(ours)}
    for name, (train, inputs) in stranger.items():
        found[name] = [train_and_test(train, inputs, test.labels, seed) for seed in range(seeds)]
    return found


def measure(out: Path, steps: int, seeds: int, only: list[str]) -> None:
    """Append a line for each method that ``out`` does not hold."""
    splits, done = load_data("digits"), {one["method"] for one in read(out)}
    for name in only or list_methods():
        if name in done:
            continue
        settings = {"architecture": NETWORK} if "architecture" in known_settings(name) else {}
        started = time.process_time()
        try:
            synthetic = build_method(name, **settings).distil(splits.train, 10, seed=0, budget=Budget(steps=steps))
        except FedclDistillError as error:
            print(f"{name}: left out: {error}", flush=True)
            continue
        line = {"method": name, "steps": steps, "seeds": seeds, "torch": torch.__version__}
        line |= {"distil_cpu_seconds": round(time.process_time() - started, 1), **judge(synthetic, splits.test, seeds)}
        append_line(out, json.dumps(line))
        print(name, {key: f"{100 * statistics.fmean(line[key]):.1f}" for key in WAYS}, flush=True)


WAYS = ("ours", "stranger", "own normalisation", "mixed spaces")


def read(out: Path) -> list[dict]:
    """The lines of ``out``."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def table(lines: list[dict]) -> Iterator[str]:
    """Markdown, the largest loss in a stranger's loop first."""
    yield "| method | our loop | stranger's loop | gap | his normalisation | mixed spaces |"
    yield "|---|---|---|---|---|---|"
    means = {one["method"]: [100 * statistics.fmean(one[way]) for way in WAYS] for one in lines}
    for name, (ours, theirs, half, mixed) in sorted(means.items(), key=lambda item: item[1][1] - item[1][0]):
        yield f"| {name} | {ours:.1f} | {theirs:.1f} | {theirs - ours:+.1f} | {half:.1f} | {mixed:.1f} |"


def main() -> None:
    """Measure, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/strangers-loop.jsonl"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--method", action="append", default=[])
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if not given.table:
        measure(given.out, given.steps, given.seeds, given.method)
    print("\n".join(table(read(given.out))))


if __name__ == "__main__":
    main()
