"""The ClientApp: what a node answers at each stage of its stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedcl_distill.engine import Distiller
from fedcl_distill.errors import DataError
from fedcl_distill.networks import DEFAULT_NETWORK_LIMITS, NetworkLimits
from fedcl_distill.work_limits import DEFAULT_WORK_LIMITS, WorkLimits
from strategies.federated.client import chosen, device_of, names_of, partition_of, respond
from strategies.federated.strategy import ClientStep, registered_steps
from strategies.federated_continual.stages import answer_roll_call, stage_of
from strategies.federated_continual.strategy import STRATEGIES
from strategies.federated_continual.streams import ClientStream, StreamTask

LoadStream = Callable[[Context], ClientStream]


def make_client_app(
    load_stream: LoadStream,
    *,
    methods: Mapping[str, Distiller] | None = None,
    network_limits: NetworkLimits = DEFAULT_NETWORK_LIMITS,
    answers: Collection[str] | None = None,
    willing: Collection[str] | None = None,
    work_limits: WorkLimits = DEFAULT_WORK_LIMITS,
) -> ClientApp:
    """A ClientApp that answers with the experience that its stream has at the stage of the request.

    An error on a node goes back as an error reply, as always in Flower.

    Args:
        load_stream: gets the node's context; its node configuration names the ``partition-id``, and may name the
            ``device`` to compute on. It is called for every message, so let it keep what takes long to make.
        methods, network_limits, answers, willing, work_limits: as for :func:`strategies.federated.make_client_app`.
    """
    app = ClientApp()
    app.query()(lambda message, context: answer_roll_call(load_stream(context), message, context))

    def handler(step: ClientStep) -> Callable[[Message, Context], Message]:
        def answer(message: Message, context: Context) -> Message:
            started = time.monotonic()
            stream, stage = load_stream(context), stage_of(message.content)
            position = stream.position_at(stage)
            if position is None:
                raise DataError(f"this node has nothing new at stage {stage}")
            task = StreamTask(
                message.content,
                stream.experiences[position],
                partition_of(context),
                device_of(context),
                context.state,
                network_limits=network_limits,
                methods=methods or {},
                work_limits=work_limits,
                willing=names_of(willing),
                stream=stream,
                position=position,
            )
            return respond(message, started, task, step)

        return answer

    for step in chosen(registered_steps(STRATEGIES), answers):
        (app.train(step.action) if step.action else app.train())(handler(step))
    return app
