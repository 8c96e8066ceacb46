import torch

from mmfm.models.heads import FindingHeads


def _heads() -> FindingHeads:
    torch.manual_seed(0)
    return FindingHeads(in_features=5, num_observations=3, num_codes=2, dropout=0.3).eval()


def test_a_mirrored_frontal_picture_mirrors_the_sides_and_nothing_else():
    heads = _heads()
    features = torch.randn(2, 5, 4, 4)
    study, views = torch.tensor([0, 1]), torch.tensor([0, 0])
    straight, mirrored = heads(features, study, views, 2), heads(features.flip(-1), study, views, 2)
    torch.testing.assert_close(mirrored.sides_BO2, straight.sides_BO2.flip(-1))
    torch.testing.assert_close(mirrored.present_BO, straight.present_BO)
    assert not torch.allclose(straight.sides_BO2[..., 0], straight.sides_BO2[..., 1])


def test_left_is_read_from_the_right_half_of_the_picture():
    heads = _heads()
    with torch.no_grad():
        heads.side.weight[:, :5], heads.side.weight[:, 5:] = 1.0, 0.0
    features = torch.zeros(1, 5, 4, 4)
    features[..., 2:] = 1.0
    left, right = heads(features, torch.tensor([0]), torch.tensor([0]), 1).sides_BO2[0].unbind(-1)
    assert (left > right).all()


def test_codes_are_read_beside_the_observations_where_any_are_learned():
    inputs = torch.randn(2, 5, 4, 4), torch.tensor([0, 1]), torch.tensor([0, 0]), 2
    assert _heads()(*inputs).codes_BK.shape == (2, 2)
    heads, (features, *_) = _heads().eval(), inputs
    one_study = heads(features, torch.tensor([0, 0]), torch.tensor([0, 1]), 1)
    for picture, view in enumerate((0, 1)):
        alone = heads(features[picture : picture + 1], torch.tensor([0]), torch.tensor([view]), 1)
        torch.testing.assert_close(one_study.codes_NK[picture], alone.codes_BK[0])
        torch.testing.assert_close(alone.codes_NK, alone.codes_BK)
    none = FindingHeads(in_features=5, num_observations=3, num_codes=0, dropout=0.3)
    assert none(*inputs).codes_BK.shape == none(*inputs).codes_NK.shape == (2, 0)
    assert not [name for name in none.state_dict() if "codes" in name]


def test_a_study_does_not_see_its_neighbours():
    heads = _heads()
    features = torch.randn(3, 5, 4, 4)
    both = heads(features, torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]), 2).present_BO
    alone = heads(features[2:], torch.tensor([0]), torch.tensor([0]), 1).present_BO
    torch.testing.assert_close(both[1:], alone)


def test_an_unstated_view_is_read_from_the_picture():
    heads = _heads()
    features = torch.randn(6, 5, 4, 4)
    untaught = heads(features, torch.arange(6), torch.full((6,), -1), 6)
    assert untaught.views_N.tolist() == [0] * 6, "slices have no view: chance must not part them"
    with torch.no_grad():
        heads.lateral.weight.normal_()
    logits = heads(features, torch.arange(6), torch.full((6,), -1), 6)
    assert torch.equal(logits.views_N, (logits.lateral_N > 0).long()) and 0 < logits.views_N.sum() < 6
    stated = heads(features, torch.arange(6), torch.tensor([0, 1, 0, 1, 0, 1]), 6)
    assert stated.views_N.tolist() == [0, 1, 0, 1, 0, 1]
