"""The Flower app: what ``flwr run .`` starts on server and nodes, and what an in-process run calls directly.

The run configuration holds the fields of ``AttackedSettings`` in kebab-case and ``results-file``, a path on the
server to which the result is appended ("" for none). A node's configuration names its ``partition-id`` and
``num-partitions``, and may name ``data-root`` and ``device``.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import lru_cache

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedcl_distill.data import LabelledData, Splits, partition
from fedcl_distill.errors import SettingsError
from fedcl_distill.files import remove
from simulations.attacks import AttackedSettings, poisoned, tamper
from simulations.data import held_out, load_splits, read_data
from simulations.running.progress import Watcher
from simulations.running.runs import append_record, finished_keys, make_record, settings_key
from simulations.settings import FederatedData
from strategies.federated import make_client_app, run_server
from strategies.federated.client import partition_of
from strategies.federated.internals import NUM_PARTITIONS_KEY


def client_data(context: Context) -> LabelledData:
    """The partition of the training data that belongs to the node of ``context``, poisoned if the node attacks.

    Raises:
        SettingsError: node and run disagree about the number of clients, or the partition does not exist.
    """
    settings = FederatedData.from_run_config(context.run_config)
    number, among = partition_of(context), context.node_config.get(NUM_PARTITIONS_KEY, settings.clients)
    if among != settings.clients or number >= settings.clients:
        raise SettingsError(
            f"the run has clients = {settings.clients}, this node holds partition {number} of {among}; "
            f"start as many nodes as the run has clients"
        )
    root = context.node_config.get("data-root")
    return poisoned(client_parts(replace(settings, data_root=str(root)) if root else settings)[number], context)


def client_parts(settings: FederatedData) -> list[LabelledData]:
    """The training data of all clients, in the order of partitions; kept for the next call.

    Raises:
        SettingsError, DataError: there are no such data, or they cannot be divided so.
    """
    return _parts(_source(settings), settings.partition, settings.clients, settings.min_client_samples, settings.seed)


def central_test_data(settings: FederatedData) -> LabelledData:
    """What the server evaluates on: test data, or what is held out of the training data; kept for the next call."""
    return _splits(_source(settings)).test


def prepare(settings: FederatedData, watcher: Watcher) -> None:
    """Let a backbone, if the data name one, work where it is seen; who loads the data later finds its features."""
    if read_data(settings.data)[1].features is not None:
        data, root, train_limit, _, seed = _source(settings)
        load_splits(data, root=root, train_limit=train_limit, seed=seed, watcher=watcher)


_Source = tuple[str, str | None, int | None, float, int]


def _source(settings: FederatedData) -> _Source:
    """What decides which samples are loaded: the seed only where some of them are drawn."""
    share = settings.validation_share
    drawing = 0 if settings.train_limit is None and not share else settings.seed
    return settings.data, settings.data_root, settings.train_limit, share, drawing


@lru_cache(maxsize=2)
def _splits(source: _Source) -> Splits:
    data, root, train_limit, share, seed = source
    splits = load_splits(data, root=root, train_limit=train_limit, seed=seed)
    return held_out(splits, share, seed) if share else splits


@lru_cache(maxsize=2)
def _parts(source: _Source, rule: str, clients: int, min_size: int, seed: int) -> list[LabelledData]:
    return partition(_splits(source).train, rule, clients, seed=seed, min_size=min_size)


client_app = make_client_app(client_data, mods=[tamper])
server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the strategy that the run configuration names, and append the result to ``results-file``.

    With a ``checkpoint-file``, a run that was cut short goes on after its last round, and one whose result is in
    ``results-file`` is not run again: its server was killed on the way out. A result makes the checkpoint superfluous.
    """
    settings = AttackedSettings.from_run_config(context.run_config)
    started, record = time.monotonic(), settings.as_record()
    results_file = str(context.run_config.get("results-file", ""))
    checkpoint = str(context.run_config.get("checkpoint-file", "")) or None
    if not (checkpoint and results_file and settings_key("federated", record) in finished_keys(results_file)):
        result = run_server(
            grid,
            settings.build_strategy(),
            test=central_test_data(settings),
            checkpoint=checkpoint,
            **settings.options,
        )
        if not results_file:
            return
        append_record(results_file, make_record("federated", record, result.as_record(), time.monotonic() - started))
    if checkpoint:
        remove(checkpoint)
