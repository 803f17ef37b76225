"""The server: nodes agree on what their tables look like, then the strategy of the run configuration learns."""

import json
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedcl_distill.flower import run_server
from hospitals.task import load_test

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    result = run_server(
        grid,
        str(config["strategy"]),
        test=load_test(str(config["test-path"])),
        network="hospital-net",
        spec="agree",
        rounds=int(config["rounds"]),
        seed=int(config["seed"]),
        clients=int(config["clients"]) or None,
        quorum=float(config["quorum"]),
        wait_seconds=float(config["wait-seconds"]),
    )
    print(result)
    if config["results-file"]:
        Path(str(config["results-file"])).write_text(json.dumps(result.as_record()), encoding="utf-8")
