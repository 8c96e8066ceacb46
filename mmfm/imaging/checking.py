"""Whether a decoded Volume is one that a volume model may read: what headers alone could not tell.

volume, receipt = Volume.from_series(series)
warnings = check_for_model(volume, receipt, modality="CT")
"""

from __future__ import annotations

import math

import numpy as np

from mmfm.errors import ScopeError
from mmfm.imaging.choice import MIN_SLICES
from mmfm.imaging.pixels import PADDING_HU
from mmfm.imaging.volume import Volume
from mmfm.study import Receipt

MIN_EXTENT_MM = 40.0
"""A volume that is smaller than this along an axis shows no organ whole."""
MAX_SPACING_MM = 10.0
"""Lesions of the sizes that are looked for would lie between slices further apart."""
THICK_MM = 5.0
"""Slices further apart than this are told."""
LONGEST_GAP = 2.5
"""Times the usual step: one missing slice in a row is told, more are refused."""
MAX_UNEVEN_SHARE = 0.05
"""Of the length of the volume: how far slices may lie, together, from where the affine puts them."""
AIR_HU, TISSUE_HU = -500.0, (-200.0, 300.0)
MIN_MR_VALUES, MOST_BELOW_ZERO = 32, 0.01
"""An MR has at least so many different values, and at most such a part of them below 0."""
MOST_SIDEWAYS_MM = 5.0
"""A slice further beside the line of the others than this shows its lesions in another place than the affine says."""
MIN_AIR, MIN_TISSUE = 0.001, 0.01
"""Least parts of a CT: without air, values have lost their intercept; without tissue, they had it twice."""


def check_for_model(volume: Volume, receipt: Receipt, *, modality: str) -> tuple[str, ...]:
    """Checks a Volume against what every volume model needs, whatever it looks for.

    One grey array of ``MIN_SLICES`` slices or more with a place in the patient, at least 40 mm wide and at most 10 mm
    apart along each axis; a CT in Hounsfield units, in which there is air and tissue; an MR whose values are no labels
    and not below 0. At most one slice in a row may be missing, all uneven steps together may make 5 % of the length,
    and no slice may lie more than 5 mm beside the line of the others.

    Args:
        volume: as decoded, before it is resampled.
        receipt: that ``Volume.from_series`` gave with it.
        modality: that is wanted, CT or MR.

    Returns:
        What a reader of the draft must know, one sentence each, beside the receipt's own warnings.

    Raises:
        ScopeError: one of these does not hold.
    """
    if receipt.modality != modality:
        stated = receipt.modality is not None
        fix = "give another study" if stated else "say which it is by --modality"
        raise _refusal(modality, "another modality" if stated else "no modality stated", fix)
    if volume.array.ndim != 3:
        raise _refusal("grey values", "colour")
    wanted = "HU" if modality == "CT" else "stored"
    if volume.quantity != wanted:
        if modality == "CT":
            raise _refusal("a CT in Hounsfield units", "no rescale to them stated", "export it again with its rescale")
        raise _refusal("the values of an MR as stored", f"values as {volume.quantity}")
    if volume.affine is None or receipt.spacing is None:
        raise _refusal("a stated place in the patient", "none")
    slices = volume.array.shape[0]
    if slices < MIN_SLICES:
        raise _refusal(f"at least {MIN_SLICES} slices", f"{slices} slice{'s' * (slices != 1)}: a picture")
    spacing = [round(float(mm), 2) for mm in (receipt.spacing[0], *np.linalg.norm(volume.affine[:3, 1:3], axis=0))]
    extents = [step * count for step, count in zip(spacing, volume.array.shape, strict=True)]
    if max(spacing) > MAX_SPACING_MM:
        raise _refusal(f"voxels at most {MAX_SPACING_MM:g} mm apart", f"{max(spacing):.3g} mm")
    if min(extents) < MIN_EXTENT_MM:
        raise _refusal(
            f"a volume of at least {MIN_EXTENT_MM:g} mm along each axis", " x ".join(f"{e:.3g}" for e in extents)
        )
    _check_values(volume.array, modality)
    warnings = _check_steps(receipt, slices)
    if spacing[0] > THICK_MM:
        warnings += (f"slices are {spacing[0]:.3g} mm apart: what is smaller may lie between them unseen",)
    return warnings


def _check_values(array: np.ndarray, modality: str) -> None:
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise _refusal("finite values", "values that are infinite or no numbers")
    if low == high:
        raise _refusal("values that differ", "one value everywhere")
    if modality == "CT":
        some = array[:: max(1, len(array) // 64), ::4, ::4]  # enough to tell
        # What lies at or below where padding is put may be padding, which says nothing of an intercept.
        air = float(np.mean((some < AIR_HU) & (some > PADDING_HU)))
        tissue = float(np.mean((some > TISSUE_HU[0]) & (some < TISSUE_HU[1])))
        if air < MIN_AIR or tissue < MIN_TISSUE:
            raise _refusal(
                "Hounsfield units with air and tissue among them",
                f"values from {low:g} to {high:g}, {air:.1%} of them air and {tissue:.1%} tissue",
                "export it again with its rescale",
            )
        return
    some = array[:: max(1, len(array) // 64), ::2, ::2]
    if (values := len(np.unique(some))) < MIN_MR_VALUES:
        raise _refusal("an MR image", f"{values} different values, as of a mask or a map of labels")
    if (below := float(np.mean(some < 0))) > MOST_BELOW_ZERO:
        raise _refusal(
            "the values of an MR as acquired", f"{below:.0%} of them below 0", "give it as it was before normalisation"
        )


def _check_steps(receipt: Receipt, slices: int) -> tuple[str, ...]:
    """Returns a warning where single slices are missing; refuses longer gaps and mixed spacing."""
    assert receipt.spacing is not None, "the caller asks"
    if receipt.sideways_mm > MOST_SIDEWAYS_MM:
        raise _refusal(
            "slices along one line", f"one {receipt.sideways_mm:.3g} mm beside it", "export the series again"
        )
    usual, uneven = receipt.spacing[0], receipt.uneven_steps
    if not uneven:
        return ()
    apart = sum(abs(step - usual) for step in uneven) / (usual * slices)
    told = f"{len(uneven)} of {slices - 1} steps other than {usual:g} mm, from {min(uneven):g} to {max(uneven):g} mm"
    if max(uneven) > LONGEST_GAP * usual or apart > MAX_UNEVEN_SHARE:
        raise _refusal(
            f"evenly spaced slices, with at most single ones missing and {MAX_UNEVEN_SHARE:.0%} of the length uneven",
            f"{told}, {apart:.1%} of the length",
            "send all slices of the series, or name another one by --series",
        )
    return (f"{told} (slices are missing?): what lies there is not seen, and lengths across it are not exact",)


def _refusal(expected: str, found: str, fix: str = "give another study; no draft is made") -> ScopeError:
    return ScopeError("the volume", expected=expected, found=found, fix=fix)
