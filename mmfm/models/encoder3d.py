"""Encoder3D: a volume to grids of patch features, fine and coarse, by any of several 3D networks.

``DynUNet`` (the network of nnU-Net, arXiv:1904.08128), ``SegResNet`` (arXiv:1810.11654), the encoder of ``SwinUNETR``
(arXiv:2201.01266), ``ViT`` (arXiv:2010.11929), ``resnet10`` to ``resnet50`` and ``DenseNet121`` are those of MONAI;
``slabs`` runs any Encoder2D over slabs of slices; ``astra`` is a pretrained encoder of chest CT
(``mmfm.models.astra``).

A patch is named after the voxels that it covers, ``[i * stride, (i + 1) * stride)``. What its feature sees is
wider, and strided convolutions centre that on the first voxels of the patch rather than on its middle.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmfm.errors import ConfigError
from mmfm.imaging.transforms import map_points
from mmfm.models import astra
from mmfm.models.encoder2d import Encoder2D

RESNETS: dict[str, tuple[str, tuple[int, int, int, int]]] = {
    "resnet10": ("basic", (1, 1, 1, 1)),
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
}
"""Block and blocks a stage, by name."""
NAMES = ("DynUNet", "SegResNet", "SwinUNETR", "ViT", *RESNETS, "DenseNet121", "slabs", "astra")
_VIT_PATCH = 8
_Run = Callable[..., Tensor]
"""Calls a stage, keeping its activations or not."""


@dataclass(frozen=True, kw_only=True)
class Features3D:
    """Patch features of a batch of volumes; the same tensor twice from a network of one level."""

    fine_NEDHW: Tensor
    coarse_NEDHW: Tensor


class Encoder3D(nn.Module):
    """A network without its head; ``forward`` gives patch features on their grids."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What ``build`` needs."""

        name: str = "DynUNet"
        """One of ``NAMES``."""
        in_channels: int = 4
        """Channels of a volume: windows of a CT, contrasts of an MR."""
        patch: int = 2
        """Voxels along each axis that are folded into channels before the network, which then needs no strided first
        layer; 1 folds none. Of ``slabs``: slices a slab."""
        width: int = 16
        """Channels of the first stage (``ViT``: of every token); the stages behind it have multiples."""
        shape: tuple[int, int, int] | None = None
        """Voxels of the largest volume; ``ViT`` alone needs it, for its table of positions."""
        slices: Encoder2D.Config | None = None
        """Of ``slabs``: the network that sees each slab; no slice is larger than its ``image_size``."""
        weights: str | None = None
        """A .safetensors file with the state of ``network``; ``pretrained``, of ``astra``; None for random weights."""
        checkpoint_activations: bool = False
        """Computes activations anew in the backward pass instead of keeping them; running statistics of batch
        normalization, which the residual and dense networks have, then move twice a step."""

        def without_weights(self) -> Encoder3D.Config:
            """Returns the same architecture, for weights that a checkpoint brings."""
            slices = None if self.slices is None else replace(self.slices, weights=None)
            return replace(self, weights=None, slices=slices)

        def build(self) -> Encoder3D:
            """Returns the encoder with its weights."""
            return Encoder3D(
                name=self.name,
                in_channels=self.in_channels,
                patch=self.patch,
                width=self.width,
                shape=self.shape,
                slices=self.slices.build() if self.slices else None,
                weights=self.weights,
                checkpoint_activations=self.checkpoint_activations,
            )

    def __init__(
        self,
        *,
        name: str,
        in_channels: int,
        patch: int,
        width: int,
        shape: tuple[int, int, int] | None = None,
        slices: Encoder2D | None = None,
        weights: str | None = None,
        checkpoint_activations: bool = False,
    ) -> None:
        """Makes the network.

        Raises:
            ConfigError: ``name`` is not known, an option does not fit it, or the weights cannot be had.
        """
        super().__init__()
        _check(name, in_channels, patch, width, shape, slices, weights)
        self.name, self.in_channels, self.shape = name, in_channels, shape
        self.checkpoint_activations = checkpoint_activations
        self.fold = (patch, 1, 1) if name == "slabs" else (patch,) * 3
        """Voxels along each axis that become channels."""
        channels = in_channels * math.prod(self.fold)
        # The fold takes the place of the stride that a network starts with.
        stem = 2 if patch == 1 else 1
        self.network: Any
        self._features: Callable[[Any, Tensor, _Run], tuple[Tensor, Tensor]]
        fine: tuple[int, ...] = (2 * stem,) * 3
        coarse: tuple[int, ...] = (16 * stem,) * 3
        if name == "DynUNet":
            self.network, self._features = _dynunet(channels, width, folded=patch > 1), _dynunet_features
            fine, coarse = (1, 1, 1), (8, 8, 8)
        elif name == "SegResNet":
            self.network, self._features = _segresnet(channels, width), _segresnet_features
            fine, coarse = (1, 1, 1), (8, 8, 8)
        elif name == "SwinUNETR":
            self.network, self._features = _swin(channels, width, stem, checkpoint_activations), _swin_features
        elif name == "ViT":
            assert shape is not None
            grid = [math.ceil(size / patch / _VIT_PATCH) for size in shape]
            self.network, self._features = _vit(channels, width, [_VIT_PATCH * g for g in grid]), _vit_features
            fine = coarse = (_VIT_PATCH,) * 3
        elif name == "DenseNet121":
            self.network, self._features = _densenet(channels, width, stem), _densenet_features
        elif name == "slabs":
            assert slices is not None
            self.network, self._features = _Slabs(slices, channels, patch), _slabs_features
            in_plane = (self.network.stride, self.network.stride)
            fine, coarse = (1, *in_plane), (self.network.depth, *in_plane)
        elif name == "astra":
            self.network, self._features = astra.build_network(width), _astra_features
            fine, coarse = (2, 4, 4), (16, 32, 32)
        else:
            self.network, self._features = _resnet(name, channels, width, stem), _resnet_features
        self.fine_stride = _stride(self.fold, fine)
        """Voxels (slices, rows, columns) of the input that a fine patch covers."""
        self.coarse_stride = _stride(self.fold, coarse)
        """Voxels (slices, rows, columns) of the input that a coarse patch covers."""
        if weights is not None:
            self.network.load_state_dict(_load(weights))
        with torch.no_grad():
            features = self.eval()(torch.zeros(1, in_channels, *self.coarse_stride))
        self.train()
        self.num_fine: int = features.fine_NEDHW.shape[1]
        """Channels ``E`` of a fine patch feature."""
        self.num_coarse: int = features.coarse_NEDHW.shape[1]
        """Channels ``E`` of a coarse patch feature."""

    def forward(self, volumes_NCDHW: Tensor) -> Features3D:
        """Returns patch features of volumes of any size; the last patch along an axis may reach beyond the volume.

        Raises:
            ConfigError: the volumes are larger than a network of fixed size takes.
        """
        size = volumes_NCDHW.shape[2:]
        padding = [p - s for p, s in zip(self._padded(size), size, strict=True)]
        volumes_NCDHW = F.pad(volumes_NCDHW, (0, padding[2], 0, padding[1], 0, padding[0]))
        # On CPUs, torch 2.13's bfloat16 gradient of a 3D convolution's weights is wrong, at times not even a number,
        # where the depth is 2. No patient is so flat, but tests and small experiments are: they run in float32.
        is_flat = volumes_NCDHW.device.type == "cpu" and volumes_NCDHW.shape[2] <= 2 * self.coarse_stride[0]
        with torch.autocast("cpu", enabled=False) if is_flat else nullcontext():
            fine, coarse = self._features(self.network, _folded(volumes_NCDHW, self.fold), self._run)
        return Features3D(
            fine_NEDHW=_cropped(fine, size, self.fine_stride), coarse_NEDHW=_cropped(coarse, size, self.coarse_stride)
        )

    def _padded(self, size: torch.Size) -> tuple[int, ...]:
        largest = self.shape
        unit = self.coarse_stride
        if self.name == "slabs":
            side = self.network.encoder.image_size
            largest, unit = (size[0], side, side), (self.fold[0], side, side)
        if largest is not None and any(s > most for s, most in zip(size, largest, strict=True)):
            raise ConfigError(
                "model.encoder.slices.image_size" if self.name == "slabs" else "model.encoder.shape",
                expected=f"a volume of at most {_times(largest)} voxels",
                found=_times(tuple(size)),
                fix="crop or resample the volume, or build the encoder for a larger one",
            )
        wanted = self.shape or size
        if self.name == "DynUNet":  # instance normalization needs more than one coarse patch
            wanted = (max(wanted[0], 2 * unit[0]), *wanted[1:])
        return tuple(math.ceil(s / u) * u for s, u in zip(wanted, unit, strict=True))

    def _run(self, stage: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        if self.checkpoint_activations and torch.is_grad_enabled():
            return checkpoint(stage, *inputs, use_reentrant=False)
        return stage(*inputs)


def patch_positions(affine: np.ndarray, stride: tuple[int, int, int], grid_shape: tuple[int, int, int]) -> np.ndarray:
    """Returns the centres (d, h, w, 3) of patches in LPS millimetres.

    Args:
        affine: 4x4, (slice, row, column, 1) of the encoder's input -> LPS mm.
        stride: voxels that a patch covers along each axis.
        grid_shape: patches along each axis.
    """
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid_shape), indexing="ij"), axis=-1)
    centres = (index + 0.5) * np.asarray(stride) - 0.5
    return map_points(affine, centres)


def _check(
    name: str,
    in_channels: int,
    patch: int,
    width: int,
    shape: tuple[int, int, int] | None,
    slices: Encoder2D | None,
    weights: str | None,
) -> None:
    if name not in NAMES:
        import difflib

        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.3)
        raise ConfigError(
            "model.encoder.name",
            expected=f"one of {', '.join(NAMES)}",
            found=repr(name),
            fix=f"take {near[0] if near else 'DynUNet'}",
        )
    for field, needed_by, value in (("shape", "ViT", shape), ("slices", "slabs", slices)):
        if (name == needed_by) != (value is not None):
            raise ConfigError(
                f"model.encoder.{field}",
                expected="a value" if name == needed_by else f"None, as {name} does not use it",
                found="None" if value is None else "a value",
                fix=f"give {field} with {needed_by}, and with no other network",
            )
    unit = {"SegResNet": 8, "SwinUNETR": 12, "DenseNet121": 2, "ViT": 64 if width > 64 else 1}.get(name, 1)
    if width % unit:
        raise ConfigError(
            "model.encoder.width",
            expected=f"a multiple of {unit} for {name}",
            found=str(width),
            fix=f"take {math.ceil(width / unit) * unit}",
        )
    if name == "astra" and (in_channels, patch) != (1, 1):
        raise ConfigError(
            "model.encoder",
            expected="in_channels=1 and patch=1 for astra",
            found=f"in_channels={in_channels} and patch={patch}",
            fix="give these, and volumes from mmfm.models.astra.preprocess",
        )
    if weights == "pretrained" and (name, width) != ("astra", astra.WIDTH):
        raise ConfigError(
            "model.encoder.weights",
            expected=f"a .safetensors file or None, as no weights for {name} of width {width} come with a package",
            found="pretrained",
            fix=f"take None, or name astra with width {astra.WIDTH}",
        )


def _load(weights: str) -> dict[str, Tensor]:
    if weights == "pretrained":
        return astra.pretrained_state_dict()
    from safetensors.torch import load_file

    if not Path(weights).is_file():
        raise ConfigError(
            "model.encoder.weights", expected="a .safetensors file", found=weights, fix="give the path of a local file"
        )
    return load_file(weights)


def _stride(fold: tuple[int, ...], steps: tuple[int, ...]) -> tuple[int, int, int]:
    return fold[0] * steps[0], fold[1] * steps[1], fold[2] * steps[2]


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _folded(x_NCDHW: Tensor, fold: tuple[int, ...]) -> Tensor:
    """Pixel-unshuffle in 3D: (N, C, D, H, W) to (N, C * f0 * f1 * f2, D / f0, H / f1, W / f2)."""
    d, h, w = (size // f for size, f in zip(x_NCDHW.shape[2:], fold, strict=True))
    split = x_NCDHW.unflatten(4, (w, fold[2])).unflatten(3, (h, fold[1])).unflatten(2, (d, fold[0]))
    return split.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


def _cropped(features: Tensor, size: torch.Size, stride: tuple[int, ...]) -> Tensor:
    d, h, w = (math.ceil(s / step) for s, step in zip(size, stride, strict=True))
    return features[:, :, :d, :h, :w]


def _dynunet(channels: int, width: int, *, folded: bool) -> nn.Module:
    from monai.networks.nets.dynunet import DynUNet

    network: Any = DynUNet(
        spatial_dims=3,
        in_channels=channels,
        out_channels=1,
        # A wider kernel on folded voxels would smear each over three patches before anything else reads it.
        kernel_size=(1 if folded else 3, 3, 3, 3),
        strides=(1, 2, 2, 2),
        upsample_kernel_size=(2, 2, 2),
        filters=tuple(width * 2**level for level in range(4)),
    )
    network.output_block = nn.Identity()  # the head
    del network.skip_layers  # the same stages once more, nested
    return network


def _dynunet_features(network: Any, x: Tensor, run: _Run) -> tuple[Tensor, Tensor]:
    levels = [run(network.input_block, x)]
    for stage in network.downsamples:
        levels.append(run(stage, levels[-1]))
    fine = coarse = run(network.bottleneck, levels[-1])
    for stage in network.upsamples:
        fine = run(stage, fine, levels.pop())
    return fine, coarse


def _segresnet(channels: int, width: int) -> nn.Module:
    from monai.networks.nets.segresnet import SegResNet

    network = SegResNet(
        spatial_dims=3,
        in_channels=channels,
        init_filters=width,
        blocks_down=(1, 2, 2, 2),
        blocks_up=(1, 1, 1),
        norm=("GROUP", {"num_groups": 8}),
    )
    network.conv_final[2] = nn.Identity()  # the head: its normalization and activation stay
    return network


def _segresnet_features(network: Any, x: Tensor, run: _Run) -> tuple[Tensor, Tensor]:
    x = network.convInit(x)
    levels = []
    for stage in network.down_layers:
        x = run(stage, x)
        levels.append(x)
    coarse = levels.pop()
    for up, stage in zip(network.up_samples, network.up_layers, strict=True):
        x = run(stage, up(x) + levels.pop())
    return network.conv_final(x), coarse


def _swin(channels: int, width: int, stem: int, checkpoint_activations: bool) -> nn.Module:
    from monai.networks.nets.swin_unetr import SwinTransformer

    return SwinTransformer(
        in_chans=channels,
        embed_dim=width,
        window_size=(7, 7, 7),
        patch_size=(stem,) * 3,
        depths=(2, 2, 2, 2),
        num_heads=(3, 6, 12, 24),
        use_checkpoint=checkpoint_activations,
    )


def _swin_features(network: Any, x: Tensor, run: _Run) -> tuple[Tensor, Tensor]:
    _, fine, *_, coarse = network(x)
    return fine, coarse


def _vit(channels: int, width: int, shape: list[int]) -> nn.Module:
    from monai.networks.nets.vit import ViT

    network = ViT(
        in_channels=channels,
        img_size=shape,
        patch_size=_VIT_PATCH,
        hidden_size=width,
        mlp_dim=4 * width,
        num_heads=max(1, width // 64),
    )
    for block in network.blocks:
        block.norm_cross_attn = nn.Identity()  # made in any case, used with cross-attention alone
    return network


def _vit_features(network: Any, x: Tensor, run: _Run) -> tuple[Tensor, Tensor]:
    grid = [size // _VIT_PATCH for size in x.shape[2:]]
    tokens_NPE = network.patch_embedding(x)
    for block in network.blocks:
        tokens_NPE = run(block, tokens_NPE)
    features = network.norm(tokens_NPE).transpose(1, 2).unflatten(2, grid)
    return features, features


def _resnet(name: str, channels: int, width: int, stem: int) -> nn.Module:
    from monai.networks.nets.resnet import ResNet

    block, layers = RESNETS[name]
    return ResNet(
        block=block,
        layers=list(layers),
        block_inplanes=[width * 2**i for i in range(4)],
        n_input_channels=channels,
        conv1_t_stride=stem,
        shortcut_type="B",  # MONAI's "A" passes no gradient through its shortcut
        bias_downsample=False,
        feed_forward=False,
    )


def _resnet_features(network: Any, x: Tensor, run: _Run) -> tuple[Tensor, Tensor]:
    x = network.maxpool(network.act(network.bn1(network.conv1(x))))
    fine = run(network.layer1, x)
    x = fine
    for stage in (network.layer2, network.layer3, network.layer4):
        x = run(stage, x)
    return fine, x


def _astra_features(network: Any, x: Tensor, run: _Run) -> tuple[Tensor, Tensor]:
    return _resnet_features(network, x.expand(-1, 3, -1, -1, -1), run)


def _densenet(channels: int, width: int, stem: int) -> nn.Module:
    from monai.networks.nets.densenet import DenseNet121

    network: Any = DenseNet121(
        spatial_dims=3, in_channels=channels, out_channels=1, init_features=width, growth_rate=width // 2
    ).features
    network.conv0.stride = (stem,) * 3
    return network


def _densenet_features(network: Any, x: Tensor, run: _Run) -> tuple[Tensor, Tensor]:
    fine = x
    for name, stage in network.named_children():
        x = run(stage, x) if name.startswith("denseblock") else stage(x)
        if name == "denseblock1":
            fine = x
    return fine, F.relu(x)


class _Slabs(nn.Module):
    """An Encoder2D over slabs of slices; attention pools the slabs of a coarse patch (after arXiv:1802.04712)."""

    def __init__(self, encoder: Encoder2D, channels: int, patch: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.colours = nn.Conv2d(channels, 3, 1, bias=False)
        nn.init.constant_(self.colours.weight, 1 / channels)  # starts as the mean of windows and slices
        with torch.no_grad():
            side = encoder.eval()(torch.zeros(1, 1, encoder.image_size, encoder.image_size)).shape[3]
        # Of another size, the last patch of a row may reach beyond the picture, and the quotient is not the stride.
        if encoder.image_size % 32 or encoder.image_size % side:
            raise ConfigError(
                "model.encoder.slices.image_size",
                expected="a multiple of 32 that whole patches fill",
                found=f"{encoder.image_size} pixels, {side} patches",
                fix=f"take {math.ceil(encoder.image_size / 32) * 32}, or a network with other patches",
            )
        self.stride = encoder.image_size // side
        self.depth = max(1, self.stride // patch)
        """Slabs of a coarse patch, which is about as deep as it is wide."""
        self.score = nn.Sequential(
            nn.Linear(encoder.num_features, encoder.num_features // 4),
            nn.Tanh(),
            nn.Linear(encoder.num_features // 4, 1),
        )


def _slabs_features(network: Any, x_NCDHW: Tensor, run: _Run) -> tuple[Tensor, Tensor]:
    n, _, d, _, _ = x_NCDHW.shape
    slabs = network.colours(x_NCDHW.transpose(1, 2).flatten(0, 1))
    fine = run(network.encoder, slabs).unflatten(0, (n, d)).movedim(2, -1)  # (N, D, H, W, E)
    missing = -d % network.depth
    scores = F.pad(network.score(fine), (0, 0, 0, 0, 0, 0, 0, missing), value=-torch.inf)
    groups = F.pad(fine, (0, 0, 0, 0, 0, 0, 0, missing)).unflatten(1, (-1, network.depth))
    coarse = (scores.unflatten(1, (-1, network.depth)).softmax(2) * groups).sum(2)
    return fine.movedim(-1, 1), coarse.movedim(-1, 1)
