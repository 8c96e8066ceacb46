"""Small drawn volumes for tests: what is present is given, the picture is air, a body and a ball for each lesion."""

from __future__ import annotations

import numpy as np
import pytest

from mmfm.data.synthetic_volumes.drawing import DrawnVolume, Segment
from mmfm.report import Status
from mmfm.study import Patient
from mmfm.text import observations


@pytest.fixture(scope="session")
def drawn_volume():
    return _drawn_volume


def _drawn_volume(region, *findings, shape=(40, 48, 56), spacing=(2.0, 1.5, 1.5)):
    """Draws a block of 40 HU in air, off centre so that no two directions look alike, with a ball for each lesion."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * np.array(spacing)
    affine[:3, 3] = (-40.0, -30.0, -35.0)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) @ affine[:3, :3].T + affine[:3, 3]
    body = np.all((grid > (-34, -24, -31)) & (grid < (36, 30, 38)), axis=-1)
    image = np.where(body, 40.0, -1000.0).astype(np.float32)
    segmentation = np.zeros(shape, np.uint8)
    segments = []
    for one in findings:
        for ball in one.lesions:
            inside = np.linalg.norm(grid - ball.center_mm, axis=-1) <= ball.diameter_mm / 2
            image[inside] = 400.0
            segments.append(
                Segment(observation=one.observation, laterality=ball.laterality, location=ball.location, is_lesion=True)
            )
            segmentation[inside] = len(segments)
    present = {one.observation for one in findings}
    images = {"CT": image}
    if region == "head":
        images = {name: np.maximum(image * gain, 0) for name, gain in (("T1", 1), ("T2", 2), ("FLAIR", 3), ("DWI", 4))}
    return DrawnVolume(
        region=region,
        seed=5,
        patient=Patient(patient_id="synthetic-5", sex="F", age_years=61.0),
        images=images,
        affine=affine,
        segmentation=segmentation,
        segments=tuple(segments),
        findings=findings,
        labels={name: Status.PRESENT if name in present else Status.ABSENT for name in observations(region)},
    )
