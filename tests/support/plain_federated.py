"""Federated learning written down plainly, without Flower: what strategies are held against."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from fedcl_distill.data import LabelledData, partition
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.seeding import derive_seed, generator_for
from simulations.settings import FederatedSettings
from strategies.federated import FederatedResult


def parts_of(settings: FederatedSettings, train: LabelledData) -> list[LabelledData]:
    return partition(train, settings.partition, settings.clients, seed=settings.seed)


def shares_of(parts: list[LabelledData]) -> list[float]:
    return [len(part) / sum(map(len, parts)) for part in parts]


def network_of(settings: FederatedSettings, train: LabelledData) -> Network:
    """The global model before the first round."""
    architecture = Architecture.parse(settings.architecture)
    return architecture.build(train.sample_shape, train.num_classes, seed=derive_seed(settings.seed, "model"))


def start_of(settings: FederatedSettings, train: LabelledData) -> Tensor:
    return parameters_to_vector(network_of(settings, train).parameters()).detach().double()


def trained(
    settings: FederatedSettings,
    part: LabelledData,
    number: int,
    server_round: int,
    start: Tensor,
    *,
    shift: Tensor | None = None,
    mu: float = 0.0,
) -> Tensor:
    """float64 (parameters,): client ``number``'s model after SGD on loss + μ/2 ‖w − start‖² + shift · w."""
    network = network_of(settings, part).double()
    vector_to_parameters(start.clone(), network.parameters())
    weights = [parameter.detach().clone() for parameter in network.parameters()]
    velocity = [torch.zeros_like(one) for one in weights]
    inputs, seed = part.inputs().double(), derive_seed(settings.seed, "client", server_round, number)
    for epoch in range(settings.local_epochs):
        order = torch.randperm(len(part), generator=generator_for(seed, "epoch", epoch))
        for batch in order.split(settings.local_batch_size):
            vector_to_parameters(torch.cat([one.flatten() for one in weights]), network.parameters())
            network.zero_grad()
            flat = torch.cat([parameter.flatten() for parameter in network.parameters()])
            loss = F.cross_entropy(network(inputs[batch]), part.labels[batch]) + mu / 2 * (flat - start).square().sum()
            if shift is not None:
                loss = loss + shift @ flat
            loss.backward()
            for one, moving, parameter in zip(weights, velocity, network.parameters(), strict=True):
                gradient = parameter.grad + settings.local_weight_decay * one
                moving.mul_(settings.local_momentum).add_(gradient)
                one.sub_(settings.local_learning_rate * moving)
    return torch.cat([one.flatten() for one in weights])


def vector_of(result: FederatedResult) -> Tensor:
    """float64 (parameters,): the final model of a run."""
    return torch.cat([torch.tensor(array.numpy()).flatten().double() for array in result.weights.values()])
