"""The ClientApp: what a node answers at each stage of its stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedcl_distill.errors import DataError
from strategies.federated.client import respond
from strategies.federated.node import Task
from strategies.federated.work import Work, distil, sum_features, train
from strategies.federated_continual.client_stream import ClientStream
from strategies.federated_continual.replay import train_with_replay
from strategies.federated_continual.stages import answer_roll_call, stage_of

LoadStream = Callable[[Context], ClientStream]
StreamWork = Callable[[Task, ClientStream, int], RecordDict]
"""From the task, the stream, and the position in it of the experience to learn from, to the answer's content."""


def make_client_app(load_stream: LoadStream) -> ClientApp:
    """A ClientApp that answers with the experience that its stream has at the stage of the request.

    ``load_stream`` gets the node's context; its node configuration names the ``partition-id``, and may name the
    ``device`` to compute on. It is called for every message, so let it keep what takes long to make.

    An error on a node goes back as an error reply, as always in Flower.
    """
    app = ClientApp()
    app.query()(lambda message, context: answer_roll_call(load_stream(context), message, context))
    app.train()(_AtStage(load_stream, _alone(train)))
    app.train("distil")(_AtStage(load_stream, _alone(distil)))
    app.train("statistics")(_AtStage(load_stream, _alone(sum_features)))
    app.train("replay")(_AtStage(load_stream, train_with_replay))
    return app


@dataclass(frozen=True)
class _AtStage:
    """Lets a node do one kind of work on the experience of the request's stage."""

    load_stream: LoadStream
    work: StreamWork

    def __call__(self, message: Message, context: Context) -> Message:
        stream, stage = self.load_stream(context), stage_of(message.content)
        position = stream.position_at(stage)
        if position is None:
            raise DataError(f"this node has nothing new at stage {stage}")
        data = stream.experiences[position]
        return respond(message, context, lambda _: data, lambda task: self.work(task, stream, position))


def _alone(work: Work) -> StreamWork:
    """``work``, which needs the current experience and nothing else of the stream."""
    return lambda task, stream, position: work(task)
