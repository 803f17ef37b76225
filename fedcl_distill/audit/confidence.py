"""What a model says of a sample: the quantity that membership attacks on models start from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import DataError
from fedcl_distill.training import class_scores


def logit_confidences(network: nn.Module, data: LabelledData) -> Tensor:
    """float64 (n,): log(p / (1 − p)) of the probability p that ``network`` gives each sample's own class.

    It is about normal over trainings (Carlini et al. 2022, section IV-C), and it orders samples as the loss does: a
    threshold on it is the threshold on the loss of Yeom et al. (2018).

    Raises:
        DataError: there is a single class, so that every probability is 1.
    """
    if data.num_classes < 2:
        raise DataError(f"{data.name}: confidences need two classes at least")
    scores = class_scores(network, data).double()
    own = scores.gather(1, data.labels.unsqueeze(1))
    others = scores.scatter(1, data.labels.unsqueeze(1), -torch.inf)
    return own.squeeze(1) - others.logsumexp(dim=1)
