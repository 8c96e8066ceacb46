import ast
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from mmfm.errors import ConfigError
from mmfm.jsonable import from_json, to_json
from mmfm.models.encoder2d import Encoder2D
from mmfm.models.encoder3d import NAMES, Encoder3D, _folded, patch_positions

SIZE = (21, 17, 34)
SLICES = Encoder2D.Config(name="test_efficientnet", image_size=64, weights=None)
EXTRA = {
    "SegResNet": {"width": 8},
    "SwinUNETR": {"width": 12},
    "ViT": {"width": 24, "shape": (40, 48, 64)},
    "DenseNet121": {"width": 8},
    "slabs": {"slices": SLICES},
    "astra": {"in_channels": 1, "patch": 1},
}
FINE = {"DynUNet": (2, 2, 2), "SegResNet": (2, 2, 2), "ViT": (16, 16, 16), "slabs": (2, 32, 32), "astra": (2, 4, 4)}
COARSE = {"DynUNet": (16, 16, 16), "SegResNet": (16, 16, 16), "ViT": (16, 16, 16), "astra": (16, 32, 32)}


def config(name, **options):
    return Encoder3D.Config(**{"name": name, "in_channels": 2, "width": 8, **EXTRA.get(name, {}), **options})


@pytest.fixture(scope="module", params=NAMES)
def encoder(request):
    torch.manual_seed(0)
    return config(request.param).build().eval()


def noise(encoder):
    return torch.rand(1, encoder.in_channels, *SIZE, generator=torch.Generator().manual_seed(0))


def grid(size, stride):
    return tuple(-(-s // step) for s, step in zip(size, stride, strict=True))


@torch.no_grad()
def test_patches_cover_a_volume_of_any_size(encoder):
    features = encoder(noise(encoder))
    assert encoder.fine_stride == FINE.get(encoder.name, (4, 4, 4))
    assert encoder.coarse_stride == COARSE.get(encoder.name, (32, 32, 32))
    assert features.fine_NEDHW.shape == (1, encoder.num_fine, *grid(SIZE, encoder.fine_stride))
    assert features.coarse_NEDHW.shape == (1, encoder.num_coarse, *grid(SIZE, encoder.coarse_stride))


@torch.no_grad()
def test_a_change_is_seen_in_its_own_fine_patch(encoder):
    """A volume of grey whose one patch changes: the features that change most are of that patch or one beside it."""
    plain = torch.full_like(noise(encoder), 0.5)
    place = tuple(g - 2 if g > 2 else g - 1 for g in grid(SIZE, encoder.fine_stride))
    changed = plain.clone()
    d, h, w = (slice(i * s, (i + 1) * s) for i, s in zip(place, encoder.fine_stride, strict=True))
    changed[:, :, d, h, w] = 1.5
    seen = []
    for volume in (plain, changed):
        if encoder.name == "ViT":  # attention mixes all tokens at once: its first layer keeps the place
            hook = encoder.network.patch_embedding.register_forward_hook(lambda _, __, tokens: seen.append(tokens))
            encoder(volume)
            hook.remove()
        else:
            seen.append(encoder(volume).fine_NEDHW)
    difference = seen[1] - seen[0]
    if encoder.name == "ViT":
        difference = difference.transpose(1, 2).unflatten(2, grid(encoder.shape, encoder.fine_stride))
    found = np.unravel_index(int(difference.abs().sum((0, 1)).argmax()), difference.shape[2:])
    assert np.abs(np.subtract(found, place)).max() <= (0 if encoder.name in ("ViT", "slabs") else 1)


def test_bfloat16_gives_about_the_same(encoder):
    with torch.no_grad():
        exact = encoder(noise(encoder)).fine_NEDHW
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = encoder(noise(encoder)).fine_NEDHW.float()
    assert F.cosine_similarity(exact.flatten(), found.flatten(), dim=0) > 0.98


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@torch.no_grad()
def test_an_accelerator_gives_about_the_same(encoder):
    exact = encoder(noise(encoder))
    try:
        encoder.cuda()
        found = encoder(noise(encoder).cuda())
        with torch.autocast("cuda", dtype=torch.bfloat16):
            coarser = encoder(noise(encoder).cuda())
    finally:
        encoder.cpu()
    for level in ("fine_NEDHW", "coarse_NEDHW"):
        wanted = getattr(exact, level)
        torch.testing.assert_close(getattr(found, level).cpu(), wanted, atol=0.02, rtol=0.02)
        near = getattr(coarser, level).float().cpu()
        assert F.cosine_similarity(wanted.flatten(), near.flatten(), dim=0) > 0.98


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_same_when_activations_are_computed_anew(name):
    gradients, kept = [], []
    for checkpoint_activations in (False, True):
        torch.manual_seed(0)
        encoder = config(name, checkpoint_activations=checkpoint_activations).build()
        torch.manual_seed(1)  # of layers that drop
        kept.append([])
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept[-1].append(t.numel()) or t, lambda t: t):
            features = encoder(noise(encoder))
        (features.fine_NEDHW.square().mean() + features.coarse_NEDHW.square().mean()).backward()
        gradients.append({key: p.grad for key, p in encoder.named_parameters()})
    plain, anew = gradients
    assert sum(kept[1]) < 0.8 * sum(kept[0]), "numbers kept for the backward pass, weights included"
    assert [key for key, gradient in plain.items() if gradient is None] == [], "every weight is used"
    for key, gradient in plain.items():
        torch.testing.assert_close(anew[key], gradient, atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_dynunet_is_that_of_monai():
    from monai.networks.nets.dynunet import DynUNet

    encoder = config("DynUNet", patch=1).build().eval()
    filters, kernels = (8, 16, 32, 64), (3, 3, 3, 3)
    theirs = DynUNet(3, 2, 3, kernels, (1, 2, 2, 2), (2, 2, 2), filters=filters).eval()
    head = {key: value for key, value in theirs.state_dict().items() if "output_block" in key}
    assert not theirs.load_state_dict(encoder.network.state_dict() | head, strict=False).unexpected_keys
    seen = []
    theirs.bottleneck.register_forward_hook(lambda _, __, coarse: seen.append(coarse))
    volumes = torch.rand(1, 2, 32, 24, 16)
    features = encoder(volumes)
    torch.testing.assert_close(theirs.output_block(features.fine_NEDHW), theirs(volumes))
    torch.testing.assert_close(features.coarse_NEDHW, seen[0])


@torch.no_grad()
def test_segresnet_is_that_of_monai():
    from monai.networks.nets.segresnet import SegResNet

    encoder = config("SegResNet", patch=1).build().eval()
    theirs = SegResNet(in_channels=2, init_filters=8, out_channels=3, blocks_down=(1, 2, 2, 2), blocks_up=(1, 1, 1))
    head = theirs.eval().conv_final[2]
    theirs.load_state_dict(
        encoder.network.state_dict() | {f"conv_final.2.{key}": value for key, value in head.state_dict().items()}
    )
    volumes = torch.rand(1, 2, 16, 24, 16)
    features = encoder(volumes)
    torch.testing.assert_close(head(features.fine_NEDHW), theirs(volumes))
    torch.testing.assert_close(features.coarse_NEDHW, theirs.encode(volumes)[0])


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
def test_resnet_is_that_of_monai(name):
    encoder = config(name, patch=1).build().eval()
    volumes = torch.rand(1, 2, 32, 32, 64)
    features = encoder(volumes)
    assert (encoder.fine_stride, encoder.coarse_stride) == ((4,) * 3, (32,) * 3)
    torch.testing.assert_close(features.coarse_NEDHW.mean((2, 3, 4)), encoder.network(volumes))


@torch.no_grad()
def test_densenet_is_that_of_monai():
    encoder = config("DenseNet121", patch=1).build().eval()
    volumes = torch.rand(1, 2, 32, 32, 64)
    assert encoder.coarse_stride == (32,) * 3
    torch.testing.assert_close(encoder(volumes).coarse_NEDHW, F.relu(encoder.network(volumes)))


def test_voxels_become_channels_in_three_dimensions():
    volume = torch.arange(2 * 4 * 6 * 8.0).view(1, 2, 4, 6, 8)
    folded = _folded(volume, (2, 2, 2))
    assert folded.shape == (1, 16, 2, 3, 4)
    assert torch.equal(folded[0, :, 1, 2, 3], volume[0, :, 2:4, 4:6, 6:8].flatten())
    in_plane = _folded(volume, (1, 2, 2)).transpose(1, 2).flatten(0, 1)
    assert torch.equal(in_plane, F.pixel_unshuffle(volume.transpose(1, 2).flatten(0, 1), 2))


@torch.no_grad()
def test_attention_over_depth_pools_the_slabs_that_there_are():
    encoder = config("slabs").build().eval()
    volumes = torch.rand(1, 2, 40, 64, 64)  # 20 slabs: a coarse patch of 16 and one of 4
    features = encoder(volumes)
    assert features.coarse_NEDHW.shape[2] == 2
    weights = encoder.network.score(features.fine_NEDHW.movedim(1, -1)).movedim(-1, 1)
    for patch, slabs in enumerate((slice(0, 16), slice(16, 20))):
        pooled = (weights[:, :, slabs].softmax(2) * features.fine_NEDHW[:, :, slabs]).sum(2)
        torch.testing.assert_close(features.coarse_NEDHW[:, :, patch], pooled)
    assert weights.std() > 0


affines = st.lists(st.floats(-4, 4), min_size=12, max_size=12).map(
    lambda v: np.vstack([np.reshape(v, (3, 4)) + np.eye(3, 4) * 10, [0, 0, 0, 1]])
)


@given(affines, st.tuples(*[st.integers(1, 16)] * 3), st.tuples(*[st.integers(1, 4)] * 3))
def test_positions_lead_back_into_the_voxels_of_the_patch(affine, stride, shape):
    """Oblique and sheared affines among them; the diagonal keeps them invertible."""
    positions = patch_positions(affine, stride, shape)
    assert positions.shape == (*shape, 3)
    index = (positions - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    patches = np.stack(np.indices(shape), axis=-1)
    first, last = patches * stride, (patches + 1) * stride - 1
    np.testing.assert_allclose(index, (first + last) / 2, atol=1e-8)


def test_weights_come_from_a_local_file(tmp_path):
    encoder = config("SegResNet").build()
    save_file(encoder.network.state_dict(), tmp_path / "weights.safetensors")
    again = config("SegResNet", weights=str(tmp_path / "weights.safetensors")).build()
    assert torch.equal(again.network.convInit.conv.weight, encoder.network.convInit.conv.weight)
    with pytest.raises(ConfigError, match=r"weights.*safetensors"):
        config("SegResNet", weights="nowhere.safetensors").build()


@pytest.mark.parametrize("name", NAMES)
def test_a_config_survives_json(name):
    wanted = config(name)
    assert from_json(Encoder3D.Config, to_json(wanted)) == wanted


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (config("SegResnet"), "name.*SegResNet"),
        (config("ViT", shape=None), "shape.*a value"),
        (config("resnet10", shape=(8, 8, 8)), "shape.*resnet10 does not use it"),
        (config("slabs", slices=None), "slices.*a value"),
        (config("astra", patch=2), "in_channels=1 and patch=1"),
        (config("astra", weights="pretrained"), "weights.*width 64"),
        (config("SegResNet", weights="pretrained"), "weights.*SegResNet"),
        (config("ViT", width=200), "width.*multiple of 64.*take 256"),
        (config("slabs", slices=replace(SLICES, image_size=80)), "image_size.*multiple of 32.*take 96"),
        (config("SegResNet", width=12), "width.*multiple of 8.*take 16"),
        (config("SwinUNETR", width=16), "width.*multiple of 12.*take 24"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        wrong.build()


@pytest.mark.parametrize(("name", "field"), [("ViT", "shape"), ("slabs", "image_size")])
def test_a_volume_that_is_too_large_is_refused(name, field):
    encoder = config(name).build()
    with pytest.raises(ConfigError, match=rf"{field}.*8 x 8 x 80"):
        encoder(torch.zeros(1, 2, 8, 8, 80))


def test_monai_is_imported_when_it_is_needed(root):
    """It takes seconds, which a radiograph's model need not wait for."""
    for path in (root / "mmfm").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("monai") for name in names), path.name


@pytest.mark.parametrize("name", ["SegResNet", "DynUNet"])
def test_gradients_of_flat_volumes_in_bfloat16_are_those_of_float32(name):
    torch.manual_seed(0)
    encoder = Encoder3D.Config(name=name, width=8).build()
    volume = torch.randn(1, 4, 32, 32, 32)

    def gradients() -> torch.Tensor:
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            features = encoder(volume)
        (features.coarse_NEDHW.float() ** 2).mean().backward()
        return torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None])

    encoder.float()
    (encoder(volume).coarse_NEDHW ** 2).mean().backward()
    wanted = torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None])
    for _ in range(5):
        torch.testing.assert_close(gradients(), wanted, rtol=1e-3, atol=1e-5)
