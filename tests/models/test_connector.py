import pytest
import torch

from mmfm.errors import ConfigError
from mmfm.models.connector import Connector


@pytest.mark.parametrize(("kind", "tokens"), [("linear", 4), ("mlp", 9), ("resampler", 7)])
@pytest.mark.parametrize("grid", [(8, 8), (5, 7)])
def test_any_grid_gives_the_stated_number_of_tokens(kind, tokens, grid):
    connector = Connector.Config(kind=kind, num_tokens=tokens).build(in_features=6, out_features=16)
    assert connector(torch.randn(2, 6, *grid)).shape == (2, tokens, 16)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_tokens_of_an_averaged_grid_come_row_by_row(kind):
    connector = Connector.Config(kind=kind, num_tokens=4).build(in_features=6, out_features=16).eval()
    features = torch.randn(1, 6, 4, 4)
    changed = features.clone()
    changed[..., :2, 2:] += 5 * torch.randn(1, 6, 2, 2)
    difference = (connector(features) - connector(changed)).abs().sum(-1)[0]
    assert (difference > 1e-4).tolist() == [False, True, False, False]


def test_the_resampler_sees_where_a_patch_lies():
    connector = Connector.Config(kind="resampler", num_tokens=3).build(in_features=6, out_features=16).eval()
    features = torch.randn(1, 6, 4, 4)
    assert not torch.allclose(connector(features), connector(features.flip(-1)), atol=1e-6)


def test_tokens_that_form_no_square_are_refused():
    with pytest.raises(ConfigError, match="square"):
        Connector.Config(kind="mlp", num_tokens=5).build(in_features=6, out_features=16)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="linear, mlp or resampler"):
        Connector.Config(kind="perceiver", num_tokens=4).build(in_features=6, out_features=16)
