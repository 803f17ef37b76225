"""What to keep of a stream behind a frozen backbone: kB kept at the end, and accuracy on all classes.

    python experiments/feature_memories.py run --data cifar10
    python experiments/feature_memories.py table

Classes come two by two (``--experiences``). ``run`` appends a line for each memory, budget and seed (of the order of
classes, and of all draws) to ``experiments/feature-memories.jsonl``; what is there is not run again. What replays
samples trains a linear head by SGD, whose rate is chosen on a tenth of the training data that takes no part, at the
smallest budget of seed 0. Exact sums have no budget.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feature_sets import feature_set
from feature_sums import found_in, read

from fedcl_distill.data import Splits
from simulations.data import held_out
from strategies.continual import ContinualSettings, run_stream

RESULTS = Path(__file__).parent / "feature-memories.jsonl"
BUDGETS = (34_000, 64_000, 96_000, 645_000)
RATES = (0.1, 1.0, 10.0)


@dataclass(frozen=True)
class Row:
    """One way to remember.

    Attributes:
        name: in tables.
        strategy: of the continual run.
        own: settings of the strategy.
        budgets: in bytes; none for what takes what it takes.
        trained: whether there is a rate to choose.
    """

    name: str
    strategy: str
    own: dict[str, Any] = field(default_factory=dict)
    budgets: tuple[int, ...] = ()
    trained: bool = False


ROWS = (
    Row("class means (NCM)", "ncm"),
    Row("running covariance (SLDA)", "slda"),
    Row("accumulated sums, ridge", "ridge"),
    Row("random projection to 2,000, ridge (RanPAC)", "ranpac"),
    Row("means and directions, LDA", "low-rank", budgets=BUDGETS[:3]),
    Row("cluster centres, LDA", "clustered", budgets=BUDGETS),
    Row("cluster centres, logistic", "clustered", {"head": "logistic"}, BUDGETS),
    Row("reservoir, replay", "reservoir", budgets=(64_000, 645_000), trained=True),
    Row("herding, replay", "herding", budgets=(64_000, 645_000), trained=True),
    Row("balanced, training on the memory alone (GDumb)", "gdumb", budgets=(64_000, 645_000), trained=True),
    Row("reservoir, ER-ACE", "er-ace", budgets=(64_000, 645_000), trained=True),
    Row("fine-tuning, no memory", "naive", trained=True),
)


def life(row: Row, splits: Splits, seed: int, budget: int | None, rate: float, experiences: int) -> Any:
    """One run; the bytes of features without a budget are those of sums alone."""
    settings = ContinualSettings(
        strategy=row.strategy,
        strategy_settings=row.own,
        seed=seed,
        order_seed=seed,
        experiences=experiences,
        byte_budget=budget,
        architecture="linear",
        learning_rate=rate or 0.01,
        weight_decay=0.0,
    )
    return run_stream(settings, splits)


def cells(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Lines that are not there yet, as they are done."""
    splits = Splits(*feature_set(given.data, root=given.root, cache=given.cache))
    known, facts = list(read(given.out)), {"data": given.data, "experiences": given.experiences}
    for row in (row for row in ROWS if given.rows in row.name):
        wanted = [
            {**facts, "row": row.name, "budget": budget, "seed": int(seed)}
            for budget in row.budgets or (None,)
            for seed in given.seeds.split(",")
        ]
        missing = [one for one in wanted if not found_in(known, one)]
        rate = tuned(row, splits, given.experiences) if missing and row.trained else 0.0
        for one in missing:
            started = time.process_time()
            result = life(row, splits, one["seed"], one["budget"], rate, given.experiences)
            measured = {"bytes": max(result.bytes_kept), "accuracy": round(result.test_accuracy, 5)}
            yield {**one, **measured, "rate": rate, "cpu_seconds": round(time.process_time() - started, 2)}


def tuned(row: Row, splits: Splits, experiences: int) -> float:
    """The rate after which most is known of held-out training data."""
    inner, budget = held_out(splits, 0.1, 0), row.budgets[0] if row.budgets else None
    return max(RATES, key=lambda rate: float(life(row, inner, 0, budget, rate, experiences).test_accuracy))


def table(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    """One Markdown table for each data set."""
    for data in dict.fromkeys(line["data"] for line in lines):
        own = [line for line in lines if line["data"] == data]
        yield f"\n**{data}**, {own[0]['experiences']} experiences, {len({line['seed'] for line in own})} seeds\n"
        yield "| what is kept | kB | % |\n|---|---:|---:|"
        for row in ROWS:
            for budget in row.budgets or (None,):
                cell = found_in(own, {"row": row.name, "budget": budget})
                if cell:
                    reached = [100 * line["accuracy"] for line in cell]
                    spread = f" ± {statistics.stdev(reached):.1f}" if len(reached) > 1 else ""
                    kept = statistics.fmean(line["bytes"] for line in cell) / 1000
                    yield f"| {row.name} | {kept:,.0f} | {statistics.fmean(reached):.1f}{spread} |"


def main() -> None:
    """Run cells, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--root")
    parser.add_argument("--experiences", type=int, default=5)
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
