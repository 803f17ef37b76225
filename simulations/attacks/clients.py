"""Where attacks take place: between a node and its data, and between a node and its answer."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context, Message

from fedcl_distill.data import LabelledData
from simulations.attacks.base import Attack
from simulations.attacks.settings import AttackedSettings
from strategies.federated.client import partition_of


def poisoned(data: LabelledData, context: Context) -> LabelledData:
    """What the node of ``context`` works on."""
    if not context.run_config.get("attack"):
        return data
    settings = AttackedSettings.from_run_config(context.run_config)
    attack, partition = _attack(settings, context), partition_of(context)
    return data if attack is None else attack.poison(data, settings.attack_seed(partition))


def tamper(message: Message, context: Context, answer: Callable[[Message, Context], Message]) -> Message:
    """A mod of a ``ClientApp``: what the node of ``context`` sends."""
    reply = answer(message, context)
    attack = _attack(AttackedSettings.from_run_config(context.run_config), context)
    if attack is not None and not reply.has_error():
        reply.content = attack.send(message.content, reply.content)
    return reply


def _attack(settings: AttackedSettings, context: Context) -> Attack | None:
    return settings.chosen_attack if partition_of(context) in settings.malicious else None
