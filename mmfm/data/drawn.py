"""Volumes drawn for training: each once, kept on disk from then on, and laid and noisy otherwise in every epoch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch.utils.data import Dataset

from mmfm.batch import Inputs
from mmfm.data.seeds import study_seed
from mmfm.data.synthetic_volumes import ANATOMIES, DRAWN, draw_volume, drawing
from mmfm.data.synthetic_volumes.drawing import DrawnVolume, Segment
from mmfm.data.synthetic_volumes.wording import write_report
from mmfm.files import sha256_of
from mmfm.jsonable import from_json, to_json
from mmfm.report import Finding, Place, Sections, Side, Status
from mmfm.study import Patient

COUNTED = (
    "nodule", "consolidation", "fracture", "liver_lesion", "kidney_lesion", "pancreas_lesion", "brain_mass", "infarct",
    "intracranial_hemorrhage",
)  # fmt: skip
"""Observations whose every lesion is known in a drawn volume."""
EXTENDED = ("pleural_effusion", "pneumothorax", "emphysema", "free_fluid")
"""Observations whose extent is known there."""
_BOTH = (Side.RIGHT, Side.LEFT)
_IN_BRAIN = ("brain_mass", "infarct", "intracranial_hemorrhage")
PLACES = (
    *(
        Place(laterality=side, location=f"{part} lobe", observations=("nodule", "consolidation"))
        for side in _BOTH
        for part in ("upper", "middle", "lower")
    ),
    *(Place(laterality=side, location="ribs", observations=("fracture",)) for side in _BOTH),
    *(Place(location=f"{side} hepatic lobe", observations=("liver_lesion",)) for side in _BOTH),
    *(
        Place(laterality=side, location=location, observations=("kidney_lesion",))
        for side in _BOTH
        for location in ("upper pole", "interpolar region", "lower pole")
    ),
    *(Place(location=f"pancreatic {part}", observations=("pancreas_lesion",)) for part in ("head", "body", "tail")),
    *(
        Place(laterality=side, location=location, observations=_IN_BRAIN)
        for side in _BOTH
        for location in (
            "frontal lobe", "parietal lobe", "temporal lobe", "occipital lobe", "basal ganglia", "cerebellum",
        )
    ),
    Place(location="brainstem", observations=_IN_BRAIN),
)  # fmt: skip
"""Where the lesions of drawn volumes are; a left middle lobe is that of a mirror twin."""
SHARE_STREAM = 2_000
"""Of random numbers, beside those that ``draw_volume`` draws from the same seed."""
TOKENIZER_VOLUMES = 60
"""Of a source, whose reports a tokenizer learns from: their words repeat."""
NOISE_HU, NOISE_PART = 20.0, 0.03
"""Standard deviation, at most, of the noise that is added each time a volume is given: of CT, and of MR as a part of
its 99th percentile. What is drawn at the spacing of a recipe is smoother than what finer series give on its grid."""
_IMAGE = "image "
_TRUTH = ("patient", "segments", "findings", "labels", "contrast")
"""What is kept beside the arrays; part of the name of a file, so that one that lacks any of it is drawn anew."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Volumes of one region to learn from, every second one the mirror twin of what its seed gives."""

    region: str
    count: int
    seed: int = 0
    """Another seed, other patients."""
    spacing_mm: tuple[float, float, float] = (2.5, 2.5, 2.5)
    """Between slices, rows and columns: that of the recipe of the region."""
    share: float | None = None
    """P of each observation to be present, so that a volume teaches more than patients as they come would; ``None``
    draws them as they come. Volumes set apart are always drawn as they come."""
    apart: int | None = None
    """How many of them, the last, are set apart; ``None`` takes the part that ``Data.select_fraction`` says. Operating
    points of rare observations want more than a selected epoch does."""
    apart_spacing_mm: tuple[float, float, float] | None = None
    """``spacing_mm`` of those set apart; ``None`` for the same. Lesions of finer series have a higher P: take the
    spacing that is to be read."""


class DrawnDataset(Dataset[Inputs]):
    """Gives the model inputs of drawn volumes: the same patients every time, lying, noisy, reported otherwise."""

    def __init__(
        self,
        studies: Sequence[tuple[Drawn, int]],
        process: Callable[[DrawnVolume, Sections, np.random.Generator | None], Inputs],
        *,
        folder: Path,
        seed: int,
        vary: bool = True,
    ) -> None:
        """Takes what is to be drawn.

        Args:
            studies: sources, and which volume of each.
            process: makes inputs of a volume and its report, lying as the generator says, straight without one.
            folder: keeps what was drawn.
            seed: of how volumes lie, how noisy they are, and how reports are worded.
            vary: lie and word otherwise each time, with more noise; without, always the same, as drawn.
        """
        self.studies, self._process, self._folder = studies, process, folder
        self._seed, self._vary = seed, vary

    def labels(self) -> Iterator[tuple[str, Status]]:
        """Yields what is known of the observations of every volume; those not drawn yet are drawn."""
        for study in self.studies:
            yield from kept_volume(*study, self._folder).labels.items()

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, index: int) -> Inputs:
        # Of torch's generator, which each worker has its own of and a resumed run takes back: a count of the times
        # that a volume was given would begin again in every worker.
        times = [int(torch.randint(1 << 31, ()))] if self._vary else []
        rng = np.random.default_rng([self._seed, index, *times])
        drawn = kept_volume(*self.studies[index], self._folder)
        report, findings = write_report(drawn, rng)
        drawn = replace(drawn, findings=findings, images=_noisier(drawn, rng) if self._vary else drawn.images)
        return self._process(drawn, report, rng if self._vary else None)


def drawn_texts(sources: Sequence[Drawn]) -> list[str]:
    """Returns sections of reports of each source, for a tokenizer to learn the words of; of volumes drawn coarsely."""
    texts = []
    for source in sources:
        for number in range(min(source.count, TOKENIZER_VOLUMES)):
            rng = np.random.default_rng(number)
            drawn = draw_volume(
                source.region, study_seed(source.seed, "train", number, region=source.region), spacing=(8.0, 8.0, 8.0)
            )
            for _ in range(8):
                report, _ = write_report(drawn, rng)
                texts += [report.indication or "", report.findings or "", report.impression or ""]
    return texts


def kept_volume(source: Drawn, number: int, folder: Path) -> DrawnVolume:
    """Returns volume ``number`` of a source, drawn where ``folder`` does not hold it yet; in whole HU or units."""
    seed = study_seed(source.seed, "train", number // 2, region=source.region)
    mirror = bool(number % 2)
    findings = _findings(source, seed)
    known = [source.region, source.spacing_mm, seed, mirror, findings, _code(source.region), _TRUTH]
    place = folder / f"{hashlib.sha256(json.dumps(known).encode()).hexdigest()}.safetensors"
    if not place.is_file():
        _write(draw_volume(source.region, seed, spacing=source.spacing_mm, findings=findings, mirror=mirror), place)
    with safe_open(place, framework="np") as opened:
        truth = json.loads(opened.metadata()["truth"])
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  no mapping
    return DrawnVolume(
        region=source.region,
        seed=seed,
        patient=from_json(Patient, truth["patient"]),
        images={n.removeprefix(_IMAGE): a.astype(np.float32) for n, a in arrays.items() if n.startswith(_IMAGE)},
        affine=arrays["affine"],
        segmentation=arrays["segmentation"],
        segments=tuple(from_json(Segment, segment) for segment in truth["segments"]),
        findings=tuple(from_json(Finding, finding) for finding in truth["findings"]),
        labels={name: Status(status) for name, status in truth["labels"].items()},
        contrast=truth["contrast"],
    )


def _noisier(drawn: DrawnVolume, rng: np.random.Generator) -> dict[str, np.ndarray]:
    strength = rng.uniform()
    noisier = {}
    for name, image in drawn.images.items():
        level = NOISE_HU if name == "CT" else NOISE_PART * float(np.percentile(image[::4, ::4, ::4], 99))
        noisier[name] = image + np.float32(strength * level) * rng.standard_normal(image.shape, dtype=np.float32)
    return noisier


def _findings(source: Drawn, seed: int) -> tuple[str, ...] | None:
    if source.share is None:
        return None
    chosen = np.random.default_rng([seed, SHARE_STREAM]).random(len(DRAWN[source.region])) < source.share
    return tuple(name for name, wanted in zip(DRAWN[source.region], chosen, strict=True) if wanted)


def _write(drawn: DrawnVolume, place: Path) -> None:
    arrays = {f"{_IMAGE}{name}": np.round(image).astype(np.int16) for name, image in drawn.images.items()}
    truth = {name: to_json(getattr(drawn, name)) for name in _TRUTH}
    part = place.with_suffix(f".{os.getpid()}.part")  # renamed when whole: workers share the folder
    part.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {**arrays, "affine": drawn.affine, "segmentation": drawn.segmentation}, part, {"truth": json.dumps(truth)}
    )
    part.replace(place)


@cache
def _code(region: str) -> str:
    """Returns the SHA-256 of the code that draws a region."""
    return sha256_of(Path(str(module.__file__)) for module in (drawing, ANATOMIES[region]))
