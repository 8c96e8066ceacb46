import torch

from mmfm.training.augmentation import Augmentation


def _pictures() -> torch.Tensor:
    """Pictures whose left fifth is bright."""
    pictures = torch.zeros(64, 1, 40, 40)
    pictures[..., :8] = 1.0
    return pictures


def test_left_stays_left_in_every_draw():
    changed = Augmentation()(_pictures(), torch.Generator().manual_seed(0))
    assert (changed[..., :20].mean((1, 2, 3)) > changed[..., 20:].mean((1, 2, 3))).all()


def test_pictures_are_changed_each_by_itself_and_repeatably():
    pictures = _pictures()
    changed = Augmentation()(pictures, torch.Generator().manual_seed(0))
    assert changed.shape == pictures.shape
    assert not torch.allclose(changed[0], changed[1])
    torch.testing.assert_close(changed, Augmentation()(pictures, torch.Generator().manual_seed(0)))


def test_without_ranges_nothing_changes():
    still = Augmentation(shift=0, scale=(1, 1), degrees=0, brightness=0, contrast=(1, 1))
    torch.testing.assert_close(still(_pictures(), torch.Generator()), _pictures(), atol=1e-5, rtol=0)
