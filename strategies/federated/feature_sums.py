"""Sums of frozen features, once: every node sends counts, class means and second moments, the server a linear head.

Whoever holds a pretrained network trains nothing at a node. The head follows in closed form, is the same however
samples are divided over nodes, and costs one round: FedNCM from means alone (Legate et al. 2023), Fed3R and AFL by
ridge regression on whole matrices (Fanì et al. 2024; He et al. 2025), FedCGS by discriminant analysis (Guan et al.
2025). A few directions of the scatter within classes take a hundredth of a matrix's bytes. These baselines are
strategies of their own, by name.
"""

from __future__ import annotations

from typing import Literal

from fedcl_distill.errors import SettingsError
from fedcl_distill.features import HEADS, STORAGES, NaiveBayes, Storage, SumHead, Within
from fedcl_distill.features.release import admit_storage
from fedcl_distill.registry import Plain, describe, to_text
from fedcl_distill.settings import Count, settings
from fedcl_distill.synthetic.quantise import Bits
from strategies.federated.feature_server import (
    SUMMED_FEATURES,
    WORD_STEPS,
    FeatureServer,
    NoisyFeatures,
    Question,
    SecretFeatures,
    WordsQuestion,
)
from strategies.federated.private_statistics import NODES, PrivacyOptions
from strategies.federated.secure import SECURE_STEPS, SecureOptions
from strategies.federated.strategy import FederatedStrategy, ServerContext, register_strategy


@register_strategy("feature-sums")
@settings
class FederatedFeatures(FederatedStrategy):
    """Sums of features, once, and a linear head in closed form: see this module.

    Attributes:
        storage: which second moments nodes send: "means", "low-rank:rank=8", "centres:per_class=5", "diagonal",
            "projected:dimensions=256" or "full".
        head: what the server makes of the sums: "lda", "ncm", "ridge" or "logistic".
        bits: of each value of a class mean.
        second_bits: of each value of second moments; 0 takes ``bits``, and at least 8 for whole matrices.
        byte_budget: of a node's sums, in place of ``storage``: the whole matrix where it fits, else as many directions
            as fit, and never more bytes than its features themselves.
        aggregation: whether the server sees a node's sums, or the total alone.
        privacy: how much noise the total gets. ε holds for every record, whose features are shortened to length 1
            where they are longer; class names and the backbone are public.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown, the head is no linear one, or what is
            kept does not add up number by number where it must, in secret or with noise.

    Example:
        >>> run_server(grid, FederatedFeatures("low-rank:rank=16"), test=features_of_the_test_data)
    """

    storage: Storage | Plain = "low-rank:rank=8"
    head: SumHead | Plain = "lda"
    bits: Bits = 4
    second_bits: Literal[0, 2, 4, 8, 16, 32] = 0
    byte_budget: Count | None = None

    aggregation: SecureOptions = SecureOptions()
    privacy: PrivacyOptions = PrivacyOptions()

    client_steps = (SUMMED_FEATURES, *WORD_STEPS, *SECURE_STEPS)
    network = "linear"

    def __post_init__(self) -> None:
        _ = self.kept
        if isinstance(HEADS.build(self.head), NaiveBayes):
            raise SettingsError("feature-sums trains a linear head; naive-bayes is none")
        secure, epsilon = self.aggregation.secure, self.privacy.epsilon
        if epsilon and secure != (self.privacy.trust == NODES):
            raise SettingsError(
                "nodes that trust each other with shares of the noise (trust=nodes) add up in secret (secure=true), "
                "others do not"
            )
        if secure or epsilon:
            admit_storage(self.kept)

    def server(self, context: ServerContext) -> FeatureServer:
        context.require_one_round("feature-sums")
        if context.test.is_image:
            raise SettingsError("feature-sums takes feature vectors: put the server's images through the backbone, too")
        head, asked = HEADS.build(self.head), self._question(context)
        if not (self.aggregation.secure or self.privacy.epsilon):
            return FeatureServer(asked, head, context)
        words = WordsQuestion(
            **vars(asked),
            max_samples=self.aggregation.max_samples,
            epsilon=self.privacy.epsilon,
            delta=self.privacy.delta,
            parties=context.collector.nodes,
        )
        if self.aggregation.secure:
            return SecretFeatures(words, head, context, self.aggregation, self.privacy)
        return NoisyFeatures(words, head, context, self.privacy)

    def _question(self, context: ServerContext) -> Question:
        return Question(
            storage=to_text(describe(self.kept)),
            bits=self.bits,
            second_bits=self.second_bits,
        )

    @property
    def kept(self) -> Storage:
        """How nodes keep second moments.

        Raises:
            SettingsError: there is a byte budget for bits of second moments that it does not know.
        """
        if self.byte_budget is None:
            return STORAGES.build(self.storage)
        if self.second_bits:
            raise SettingsError("feature-sums: a byte budget chooses the bits of second moments; leave second_bits out")
        return Within(self.byte_budget, self.bits, 32 if self.bits == 32 else 16 if self.bits == 16 else 8)


@register_strategy("fedncm")
@settings
class FedNCM(FederatedFeatures):
    """Class means and the nearest of them (Legate et al. 2023)."""

    storage: Storage | Plain = "means"
    head: SumHead | Plain = "ncm"
    bits: Bits = 32


@register_strategy("fed3r")
@settings
class Fed3R(FederatedFeatures):
    """Whole matrices and ridge regression (Fanì et al. 2024)."""

    storage: Storage | Plain = "full"
    head: SumHead | Plain = "ridge"
    bits: Bits = 32


@register_strategy("afl")
@settings
class AFL(FederatedFeatures):
    """Whole matrices and least squares (He et al. 2025), who take each client's regularisation off again."""

    storage: Storage | Plain = "full"
    head: SumHead | Plain = "ridge:regularisation=1e-6"
    bits: Bits = 32


@register_strategy("fedcgs")
@settings
class FedCGS(FederatedFeatures):
    """Class means and one covariance that all classes share: a Gaussian classifier (Guan et al. 2025)."""

    storage: Storage | Plain = "full"
    head: SumHead | Plain = "lda"
    bits: Bits = 32


@register_strategy("fedpft")
@settings
class FedPFT(FederatedFeatures):
    """A diagonal Gaussian for each class of a node, and a head trained on draws (Beitollahi et al. 2024).

    With one component; the server draws from the Gaussian of all nodes together.
    """

    storage: Storage | Plain = "diagonal"
    head: SumHead | Plain = "logistic"
    bits: Bits = 16
