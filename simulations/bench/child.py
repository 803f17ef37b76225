"""``python -m simulations.bench.child``: one side of one case, in a process of its own.

The request comes in on standard input and the figures go out on standard output, a JSON line each.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedcl_distill.data import Splits
    from simulations.bench.cases import Side
    from simulations.bench.workload import Workload

_MATRIX = 1024
_MATRIX_REPEATS = 15


def main() -> None:
    """Do the side of the case that standard input names."""
    import torch

    from simulations.bench.cases import CASES, PLAIN
    from simulations.bench.workload import Ticker, Workload
    from simulations.costs import Meter
    from simulations.machine import tune_allocator
    from simulations.scenario_data import load_splits

    request = json.loads(sys.stdin.readline())
    work = Workload(**request["work"])
    torch.set_num_threads(work.threads)
    if request["side"] != PLAIN:  # what the command line does for every run of the library
        tune_allocator()
    data = load_splits(work.data, root=work.data_root)
    data = replace(data, test=data.test.subset(torch.arange(min(work.test_limit, len(data.test)))))
    side, ticker, meter = CASES[request["case"]][request["side"]], Ticker(), Meter()
    side(work, data, ticker)
    cost = meter.cost()
    answer = {
        "operations": _operations(side, work, data) if request["side"] == PLAIN else None,
        "seconds": ticker.seconds,
        "cpu_seconds": ticker.cpu_seconds,
        "peak_bytes": None if cost.peak_bytes is None else cost.peak_bytes - (cost.start_bytes or 0),
        "matrix_rate": matrix_rate(),
    }
    print(json.dumps(answer))


def _operations(side: Side, work: Workload, data: Splits) -> int:
    """Floating-point operations of one unit, in convolutions and matrix products."""
    from torch.utils.flop_counter import FlopCounterMode

    from simulations.bench.workload import Ticker

    with FlopCounterMode(display=False) as counter:
        side(replace(work, repeats=0), data, Ticker())
    return int(counter.get_total_flops())


def matrix_rate() -> float:
    """GFLOP per CPU-second of this process's float32 matrix product, of two square matrices of 1,024 a side."""
    import torch

    left, right = torch.randn(2, _MATRIX, _MATRIX, generator=torch.Generator().manual_seed(0))
    taken = []
    for _ in range(_MATRIX_REPEATS):
        before = time.process_time()
        left @ right
        taken.append(time.process_time() - before)
    return 2 * _MATRIX**3 / statistics.median(taken) / 1e9


if __name__ == "__main__":
    main()
