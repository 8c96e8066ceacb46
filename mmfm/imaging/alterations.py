"""Pictures altered by a stated amount, to see whether a checkpoint draws the same from them. For evaluation only.

    for alteration in ALTERATIONS:
        altered = alteration(picture, np.random.default_rng(0))

Among them is mirroring, which makes every side in a report wrong: nothing here may run where text is trained (a test
keeps training from importing this module). Here that is the point: sides drafted from a mirrored picture have to swap.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

SAME, SWAPPED, REFUSED = "the same draft", "the same findings on the other side", "no draft"
"""What is to be expected of a checkpoint."""

WINDOW_SHIFT = 0.2
NOISE, NOISE_GRAIN = 0.1, 256
BLUR = 0.01
JPEG_QUALITY = 10
CROP = 0.1
DEGREES = 10.0


@dataclass(frozen=True, kw_only=True)
class Alteration:
    """One change to a picture."""

    name: str
    amount: str
    """How much, in words."""
    expected: str
    """``SAME``, ``SWAPPED`` or ``REFUSED``."""
    alter: Callable[[np.ndarray, np.random.Generator], np.ndarray]

    def __call__(self, picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Returns the altered picture.

        Args:
            picture: (rows, columns), 0 black to 1 white; it is left as it is.
            generator: draws the noise.
        """
        return np.clip(self.alter(picture, generator), 0, 1).astype(np.float32)


def _noisy(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Adds noise of one grain size for all pictures: noise of single pixels would vanish from large ones."""
    rows, columns = picture.shape
    scale = min(1.0, NOISE_GRAIN / max(rows, columns))
    coarse = generator.normal(0, NOISE, (max(1, round(rows * scale)), max(1, round(columns * scale))))
    grains = Image.fromarray(coarse.astype(np.float32)).resize((columns, rows), Image.Resampling.NEAREST)
    return picture + np.asarray(grains)


def _blurred(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return ndimage.gaussian_filter(picture, BLUR * min(picture.shape))


def _compressed(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(stream, "JPEG", quality=JPEG_QUALITY)
    return np.asarray(Image.open(stream), dtype=np.float32) / 255


def _cropped(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    top, left = (round(CROP * side) for side in picture.shape)
    return picture[top : picture.shape[0] - top, left : picture.shape[1] - left]


def _turned(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return ndimage.rotate(picture, DEGREES, reshape=False, order=1)


def _even_noise(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return generator.random(picture.shape)


def _test_object(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draws what quality checks are made with: a bright disc with holes, and a step wedge below it."""
    row, column = (np.linspace(-1, 1, side) for side in picture.shape)
    distance = np.hypot(row[:, None] + 0.2, column[None, :])
    drawn = np.where(distance < 0.6, 0.8, 0.05)
    for angle in np.linspace(0, 2 * np.pi, 6, endpoint=False):
        hole = np.hypot(row[:, None] + 0.2 - 0.35 * np.sin(angle), column[None, :] - 0.35 * np.cos(angle))
        drawn[hole < 0.1] = 0.3
    steps = np.broadcast_to(np.floor((column + 1) / 2 * 7.99) / 7, drawn.shape)
    return np.where(row[:, None] > 0.6, steps, drawn)


ALTERATIONS = (
    Alteration(
        name="window_lower",
        amount=f"window centre lowered by {WINDOW_SHIFT:.0%} of the width: brighter, the brightest cut off",
        expected=SAME,
        alter=lambda picture, _: picture + WINDOW_SHIFT,
    ),
    Alteration(
        name="window_higher",
        amount=f"window centre raised by {WINDOW_SHIFT:.0%} of the width: darker, the darkest cut off",
        expected=SAME,
        alter=lambda picture, _: picture - WINDOW_SHIFT,
    ),
    Alteration(
        name="noise",
        amount=f"Gaussian, standard deviation {NOISE:.0%} of the display range, grains of 1/{NOISE_GRAIN} of the side",
        expected=SAME,
        alter=_noisy,
    ),
    Alteration(name="blur", amount=f"Gaussian, sigma {BLUR:.0%} of the shorter side", expected=SAME, alter=_blurred),
    Alteration(name="jpeg", amount=f"JPEG of quality {JPEG_QUALITY}, 8 bits", expected=SAME, alter=_compressed),
    Alteration(name="crop", amount=f"{CROP:.0%} cut off each side", expected=SAME, alter=_cropped),
    Alteration(
        name="rotation",
        amount=f"{DEGREES:g} degrees anticlockwise, black from outside",
        expected=SAME,
        alter=_turned,
    ),
    Alteration(
        name="inversion",
        amount="black and white exchanged, the header unchanged",
        expected=REFUSED,
        alter=lambda picture, _: 1 - picture,
    ),
    Alteration(
        name="mirroring",
        amount="left and right exchanged, the header unchanged",
        expected=SWAPPED,
        alter=lambda picture, _: picture[:, ::-1],
    ),
    Alteration(
        name="even_noise",
        amount="evenly distributed noise instead of the picture, the header unchanged",
        expected=REFUSED,
        alter=_even_noise,
    ),
    Alteration(
        name="test_object",
        amount="a drawn disc with holes and a step wedge instead of the picture, the header unchanged",
        expected=REFUSED,
        alter=_test_object,
    ),
)
