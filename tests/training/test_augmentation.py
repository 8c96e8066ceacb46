import numpy as np
import torch

from mmfm.batch import VolumeInputs
from mmfm.training.augmentation import BRIGHTNESS, CONTRAST, Augmentation, vary_brightness


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


def test_a_volume_gets_brighter_channel_by_channel_and_empty_ones_stay_empty():
    pixels = torch.rand(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    pixels[1] = 0
    volume = VolumeInputs(pixels_CDHW=pixels, between_CDHW=pixels, affine_44=torch.eye(4), lesions_X6=torch.ones(1, 6))
    varied = vary_brightness(volume, torch.Generator().manual_seed(1))
    assert not varied.pixels_CDHW[1].any() and varied.lesions_X6 is volume.lesions_X6
    assert varied.between_CDHW is None, "it would be as bright as before"
    for channel in (0, 2):
        # A straight line through the values: nothing moved, and nothing was mirrored.
        slope, start = np.polyfit(pixels[channel].flatten(), varied.pixels_CDHW[channel].flatten(), 1)
        torch.testing.assert_close(varied.pixels_CDHW[channel], pixels[channel] * slope + start, atol=1e-5, rtol=0)
        assert abs(slope - 1) <= CONTRAST and abs(start) <= BRIGHTNESS and (slope, start) != (1, 0)
