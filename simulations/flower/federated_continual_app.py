"""Federated continual learning as a Flower app; its run configuration holds ``FederatedContinualSettings``, kebab-case.

Nodes are configured, and results written, as :mod:`simulations.flower.app` says.
"""

from __future__ import annotations

import time

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from simulations.flower.app import central_test_data, client_data, client_parts
from simulations.running.runs import append_record, make_record
from simulations.settings import FederatedContinualSettings
from strategies.federated.client import partition_of
from strategies.federated_continual import ClientStream, make_client_app, run_server

KIND = "federated-continual"


def load_stream(context: Context) -> ClientStream:
    """The stream of the node of ``context``; SettingsError as for :func:`client_data`."""
    settings = FederatedContinualSettings.from_run_config(context.run_config)
    return settings.stream_of(client_data(context), partition_of(context))


client_app = make_client_app(load_stream)
server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the strategy that the run configuration names, and append the result to ``results-file``."""
    settings = FederatedContinualSettings.from_run_config(context.run_config)
    started = time.monotonic()
    result = run_server(
        grid,
        settings.build_strategy(),
        tests=settings.experiences_of(central_test_data(settings)),
        stages=settings.stages,
        **settings.options,
    )
    results_file = str(context.run_config.get("results-file", ""))
    if results_file:
        seconds = time.monotonic() - started
        append_record(results_file, make_record(KIND, settings.as_record(), result.as_record(), seconds))


def client_streams(settings: FederatedContinualSettings) -> list[ClientStream]:
    """Of all clients, in the order of partitions; SettingsError, DataError as for :func:`client_parts`."""
    return [settings.stream_of(part, number) for number, part in enumerate(client_parts(settings))]
