"""``read``: a folder, a zip or a file becomes Studies, with one outcome for each file that was met.

A bad file never stops the reading of the others, and no file is left out of the account: it is ``ok``, ``refused``
with a reason, or ``ignored`` because it is a DICOM object that holds no image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from mmfm.errors import ReadError
from mmfm.io import nifti, worker
from mmfm.io.dicom import DicomHeader, read_header, with_frames
from mmfm.io.elements import as_float
from mmfm.io.frames import Decode, decode
from mmfm.io.images import decode_picture, picture_format, read_stream
from mmfm.io.parsing import directory, is_dicom, preamble_note
from mmfm.io.sources import Refusal, Source, archive_kind, content_uid, listed, walk
from mmfm.study import (
    ORIENTATION_TOLERANCE,
    POSITION_TOLERANCE_MM,
    SPACING_TOLERANCE_MM,
    Acquisition,
    Instance,
    Patient,
    Series,
    Study,
)

MAX_VOLUMES = 1_000
"""That one series, or one multi-frame object, is split into."""
_STACKED = {"CT", "MR", "PT", "NM"}
"""Modalities whose single frames are slices of one volume. Of others, each instance is a picture of its own."""


@dataclass(frozen=True, kw_only=True)
class FileOutcome:
    """What became of one file."""

    file: str
    """The path, or ``archive.zip!member``."""
    status: Literal["ok", "refused", "ignored"]
    reason: str | None = None
    """Why it is not ``ok``; a warning where it is."""
    study_uid: str | None = None
    series_uid: str | None = None
    sop_instance_uid: str | None = None
    modality: str | None = None
    transfer_syntax: str | None = None
    rows: int | None = None
    columns: int | None = None
    frames: int | None = None
    photometric: str | None = None
    preamble_suspicious: bool = False
    """The 128 bytes before the data set are neither empty nor TIFF: they may be a program or another document."""
    archive: str | None = field(default=None, metadata={"json": False})
    """That the file is a member of."""


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """A file that was refused because a file before it states the same SOP Instance UID."""

    place: int
    """Among the files."""
    instance: Instance
    first: Instance


@dataclass(frozen=True, kw_only=True)
class Reading:
    """All that was found at one path."""

    files: tuple[FileOutcome, ...]
    studies: tuple[Study, ...]
    repeats: tuple[Repeat, ...] = ()
    """Objects that are in no study because an earlier one has their UID. Pixels can tell whether it is the same."""

    @property
    def refusals(self) -> str | None:
        """How many files were refused, and the first reason; no file's name, which may be a patient's."""
        reasons = [file.reason for file in self.files if file.status == "refused"]
        if not reasons:
            return None
        return f"{len(reasons)} of {len(self.files)} files refused; the first: {reasons[0]}"

    def require_studies(self, where: str) -> tuple[Study, ...]:
        """Returns the studies.

        Args:
            where: what was read, for the message.

        Raises:
            ReadError: there are none; the message gives the first reason and names no file but ``where``.
        """
        if self.studies:
            return self.studies
        empty = f"{len(self.files)} files without an image" if self.files else "an empty folder or archive"
        raise ReadError(
            where,
            expected="DICOM, NIfTI, PNG or JPEG images",
            found=self.refusals or empty,
            fix="run `mmfm inspect` on it for each file's reason",
        )


@dataclass(frozen=True, kw_only=True)
class _Image:
    """An image that was read, or one of its frames, and the place of its outcome among the files."""

    place: int
    header: DicomHeader
    instance: Instance
    whole: Instance | None = None
    """The multi-frame object, where this is a frame of it that is taken as a slice."""
    frame: int = 0
    """Which one, from 0."""


def read(path: str | Path, *, isolate: bool = False) -> Reading:
    """Reads the headers of everything at ``path``; pixels stay where they are until ``Instance.load`` is called.

    Instances of CT, MR, PT and NM with one frame each share a Series by their SeriesInstanceUID. Of other modalities,
    and of multi-frame objects, each instance is a Series of its own; where several share a SeriesInstanceUID, ``#1``,
    ``#2`` ... in the order of InstanceNumber is added to it. All NIfTI, PNG and JPEG files at ``path`` are one Study,
    one Series each, whose uids depend on their content alone; the description of NIfTI is the stem of its file's name.
    Slices of one SeriesInstanceUID that must not be mixed in one volume (other orientation, size, spacing or frame of
    reference, a localizer, a second pass over the same places) are Series of their own too. So are frames of one
    multi-frame object that must not be mixed (another stack, echo, b-value, time or segment): each Series has an
    Instance with some of the frames. The files of a concatenation are one object. A DICOMDIR stands for the files that
    it lists.

    Args:
        path: a folder, a zip, a DICOMDIR or a file.
        isolate: decode pixels, when they are loaded, in a process of its own that is killed where they take too long:
            for files of unknown origin. NIfTI needs no decoder, and is read in this one.

    Raises:
        ReadError: ``path`` does not exist.
    """
    path = Path(path)
    files: list[FileOutcome] = []
    images: list[_Image] = []
    pictures: list[tuple[int, Instance, str]] = []
    places = [walk(path)]
    for item in (item for place in places for item in place):  # a DICOMDIR adds the place that it lists
        if isinstance(item, Refusal):
            archive = None if item.archive is None else str(item.archive)
            files.append(FileOutcome(file=item.name, status="refused", reason=item.reason, archive=archive))
            continue
        source, stream = item
        first = not files
        try:
            if is_dicom(stream):
                outcome, image = _dicom(source, stream, len(files), worker.shared.decode if isolate else decode)
                images += [image] if image else []
                if outcome.status == "ignored" and first and source == Source(name=str(path), path=path):
                    places.append(listed(path.parent, directory(stream)))
            elif picture := nifti.FORMAT if nifti.is_nifti(stream) else picture_format(stream):
                if picture == nifti.FORMAT:
                    instance = nifti.read_stream(source, stream)
                else:
                    instance = read_stream(source, stream, worker.shared.decode_picture if isolate else decode_picture)
                shape = instance.pixels
                outcome = FileOutcome(
                    file=source.name,
                    status="ok",
                    sop_instance_uid=instance.sop_instance_uid,
                    rows=shape.rows,
                    columns=shape.columns,
                    frames=shape.frames,
                    photometric=shape.photometric,
                )
                pictures.append((len(files), instance, picture))
            else:
                outcome = FileOutcome(file=source.name, status="refused", reason=_stray(stream))
        except ReadError as error:
            outcome = FileOutcome(
                file=source.name, status="refused", reason=f"expected {error.expected}, found {error.found}"
            )
        except OSError as error:
            reason = f"expected a readable file, found: {error.strerror or 'an error'}"
            outcome = FileOutcome(file=source.name, status="refused", reason=reason)
        files.append(replace(outcome, archive=str(source.path)) if source.member else outcome)
    images, repeats = _without_repeats(_without_mixed_patients(images, files), files)
    studies = _dicom_studies(images, files) + _picture_study(pictures, files)
    return Reading(files=tuple(files), studies=tuple(studies), repeats=tuple(repeats))


def read_studies(path: str | Path) -> tuple[Study, ...]:
    """Returns the studies of ``read``.

    Raises:
        ReadError: ``path`` does not exist, or no image there could be read; the message gives the first reason.
    """
    return read(path).require_studies(str(path))


def attach(study: Study, path: str | Path) -> Study:
    """Returns ``study``, such as ``Study.from_json`` gave it, with the pixels at ``path`` attached by SOP instance UID.

    Raises:
        ReadError: ``path`` lacks an instance of the study.
    """
    loads = {
        instance.sop_instance_uid: instance.load
        for found in read(path).studies
        for series in found.series
        for instance in series.instances
    }
    wanted = {instance.sop_instance_uid for series in study.series for instance in series.instances}
    if missing := wanted - set(loads):
        raise ReadError(
            str(path),
            expected=f"all {len(wanted)} instances of the study",
            found=f"{len(missing)} missing",
            fix="give the path that the study was read from",
        )
    return replace(
        study,
        series=tuple(
            replace(s, instances=tuple(replace(i, load=loads[i.sop_instance_uid]) for i in s.instances))
            for s in study.series
        ),
    )


def _dicom(source: Source, stream: BinaryIO, place: int, decode: Decode) -> tuple[FileOutcome, _Image | None]:
    note = preamble_note(stream)
    header = read_header(source, stream, decode)
    outcome = FileOutcome(
        file=source.name,
        status="ok",
        reason=note,
        preamble_suspicious=note is not None,
        study_uid=header.study_uid,
        series_uid=header.series_uid,
        sop_instance_uid=header.instance.sop_instance_uid if header.instance else None,
        modality=header.modality,
        transfer_syntax=header.transfer_syntax,
        rows=header.rows,
        columns=header.columns,
        frames=header.frames,
        photometric=header.photometric,
    )
    if header.refused:
        return replace(outcome, status="refused", reason=header.refused), None
    if header.instance is None:
        return replace(outcome, status="ignored", reason=f"{header.sop_class} holds no image"), None
    return outcome, _Image(place=place, header=header, instance=header.instance)


def _stray(stream: BinaryIO) -> str:
    stream.seek(0)
    head = stream.read(512)
    expected = "expected DICOM, NIfTI, PNG, JPEG or zip, found"
    if not head:
        return f"{expected} an empty file"
    if head.startswith(b"%PDF"):
        return f"{expected} a PDF"
    if kind := archive_kind(stream):
        return f"{expected} an archive of another kind ({kind})"
    if all(32 <= byte < 127 or byte in b"\t\r\n\f" or byte >= 128 for byte in head):
        return f"{expected} text"
    return f"{expected} other data"


def _dicom_studies(images: list[_Image], files: list[FileOutcome]) -> list[Study]:
    groups: dict[str, dict[str, list[_Image]]] = {}
    for image in images:
        groups.setdefault(image.header.study_uid, {}).setdefault(image.header.series_uid, []).append(image)
    studies = []
    for study_uid, members in groups.items():
        series = [one for group in members.values() for one in _series(group, files)]
        if not series:
            continue
        headers = [image.header for group in members.values() for image in group]
        studies.append(
            Study(
                study_uid=study_uid,
                series=tuple(series),
                patient=Patient(
                    patient_id=_agreed(header.patient.patient_id for header in headers),
                    sex=_agreed(header.patient.sex for header in headers),
                    age_years=_lowest(header.patient.age_years for header in headers),
                ),
                description=_first(header.study_description for header in headers),
            )
        )
    return studies


def _without_mixed_patients(images: list[_Image], files: list[FileOutcome]) -> list[_Image]:
    """Refuses every image of a study, series or instance that states more than one Patient ID: whose is it?

    The slices of one acquisition are the exception where no two IDs agree: the IDs were replaced file by file. Such
    slices are read, without an ID and with a warning.
    """
    bad: dict[int, str] = {}
    replaced: dict[int, _Image] = {}
    for level in ("study", "series", "instance"):
        groups: dict[str, list[_Image]] = {}
        for image in images:
            uids = {"study": image.header.study_uid, "series": image.header.series_uid}
            groups.setdefault(uids.get(level, image.instance.sop_instance_uid), []).append(image)
        for group in groups.values():
            patients = {image.header.patient.patient_id for image in group} - {None}
            if len(patients) == len(group) and _is_one_acquisition(group):
                replaced |= {image.place: image for image in group}
            elif len(patients) > 1:
                reason = f"expected one patient in one {level}, found {len(patients)} different Patient IDs"
                bad |= {image.place: reason for image in group if image.place not in bad}
    for image in images:
        if image.place in bad:
            _refuse(files, image, bad[image.place])
        elif image.place in replaced:
            note = "every slice states another Patient ID: taken as one patient whose ID was replaced in each file"
            _tell(files, image, note)
    return [image for image in images if image.place not in bad]


def _is_one_acquisition(images: list[_Image]) -> bool:
    """Whether these are three slices or more that share a series, a stated frame of reference, sex and age.

    A frame of reference (PS3.3 C.7.4.1) is one position of one patient. Projection images never count: unlike slices,
    three of them say nothing of belonging together.
    """
    facts = {
        (
            image.header.study_uid,
            image.header.series_uid,
            image.header.frame_of_reference_uid,
            image.header.modality,
            image.header.patient.sex,
            image.header.patient.age_years,
        )
        for image in images
    }
    distinct = {image.instance.sop_instance_uid for image in images}
    stated = all(image.header.frame_of_reference_uid for image in images)
    return len(distinct) == len(images) >= 3 and all(map(_is_slice, images)) and stated and len(facts) == 1


def _without_repeats(images: list[_Image], files: list[FileOutcome]) -> tuple[list[_Image], list[Repeat]]:
    """Refuses all but the first image of each SOP Instance UID."""
    first: dict[str, _Image] = {}
    repeats = []
    for image in images:
        known = first.setdefault(image.instance.sop_instance_uid, image)
        if known is not image:
            _refuse(files, image, "expected a SOP Instance UID of its own, found that of a file before it")
            repeats.append(Repeat(place=image.place, instance=image.instance, first=known.instance))
    return list(first.values()), repeats


def _series(images: list[_Image], files: list[FileOutcome]) -> list[Series]:
    images = sorted(images, key=lambda image: (image.instance.number or 0, image.instance.sop_instance_uid))
    slices = _volumes([image for image in images if _is_slice(image)])
    for image in (image for one in slices for image in one):
        if len(slices) > 1:
            _tell(files, image, f"one of {len(slices)} volumes that share a series UID")
    groups = []
    for parts in _objects([image for image in images if not _is_slice(image)], files):
        volumes = _volumes_of_frames(parts)
        groups += volumes
        for image in parts:
            if len(volumes) > 1:
                _tell(files, image, f"an object of {len(volumes)} volumes, each a series of its own")
    groups += slices
    found = []
    for number, group in enumerate(groups, start=1):
        head = group[0].header
        uid = head.series_uid if len(groups) == 1 else f"{head.series_uid}#{number}"
        for image in group:
            shown = head.series_uid if image.whole else uid  # a file of several volumes keeps what they share
            files[image.place] = replace(files[image.place], series_uid=shown)
        found.append(
            Series(
                series_uid=uid,
                instances=_instances(group, number),
                modality=head.modality,
                view=head.view,
                laterality=head.laterality,
                body_part=head.body_part,
                description=head.series_description,
                acquisition=_acquisition(group),
            )
        )
    return found


def _acquisition(group: list[_Image]) -> Acquisition:
    """Returns how a series was made: what its first slice states, the echo time and b-value of its frame before all."""
    made, kinds = group[0].header.acquisition, [dict(image.instance.kind) for image in group]
    echo, b_value = (as_float(kinds[0].get(name)) for name in ("echo time (ms)", "b-value (s/mm2)"))
    stated = {
        kind.get("complex component", image.header.acquisition.component)
        for kind, image in zip(kinds, group, strict=True)
    } - {None}
    return replace(
        made,
        echo_time=made.echo_time if echo is None else echo,
        b_value=made.b_value if b_value is None else b_value,
        component="MIXED" if len(stated) > 1 else next(iter(stated), None),
    )


def _objects(images: list[_Image], files: list[FileOutcome]) -> Iterator[list[_Image]]:
    """Yields the objects among images that are no slices; the files of a concatenation (PS3.3 C.7.6.16.2.2.4) are one.

    Concatenations of which a part is missing are refused.
    """
    groups: dict[str, list[_Image]] = {}
    for image in images:
        named = image.header.concatenation
        groups.setdefault(named[0] if named else image.instance.sop_instance_uid, []).append(image)
    for parts in groups.values():
        stated = [image.header.concatenation or ("", 1, 1) for image in parts]
        numbers = sorted(number or 0 for _, number, _ in stated)
        total = max([total or 0 for _, _, total in stated] + numbers)
        if len(numbers) == total and numbers == list(range(1, total + 1)):
            yield [image for _, image in sorted(zip(stated, parts, strict=True), key=lambda pair: pair[0][1] or 0)]
            if total > 1:
                for image in parts:
                    _tell(files, image, f"one of {total} parts of a concatenation, joined")
        else:
            for image in parts:
                _refuse(files, image, f"expected all {total} parts of a concatenation, found {len(set(numbers))}")


def _volumes_of_frames(parts: list[_Image]) -> list[list[_Image]]:
    """Splits the frames of an object as slices of a classic series are, where each states a place; else returns it."""
    if not all(image.instance.frames for image in parts):
        return [parts]
    stated = [image.header.frame_passes for image in parts]
    count = min(len(passes[0]) if passes else 0 for passes in stated)
    frames = []
    for image in parts:
        for index, frame in enumerate(image.instance.frames):
            passes = (None, *image.header.frame_passes[index][:count]) if count else ()  # no acquisition number
            one = replace(image.instance, pixels=frame.pixels, geometry=frame.geometry, kind=frame.kind, frames=())
            header = replace(image.header, passes=passes)
            frames.append(_Image(place=image.place, header=header, instance=one, whole=image.instance, frame=index))
    if any(_along_normal(frame) is None for frame in frames):
        return [parts]
    volumes = _volumes(frames)
    return volumes if len(volumes) > 1 else [parts]


def _instances(group: list[_Image], number: int) -> tuple[Instance, ...]:
    """Returns the instances of series ``number``; of an object with several volumes, one that holds some frames."""
    chosen: dict[int, list[_Image]] = {}
    for image in group:
        chosen.setdefault(image.place, []).append(image)
    return tuple(
        with_frames(whole, [image.frame for image in images], f"{whole.sop_instance_uid}#{number}")
        if (whole := images[0].whole)
        else images[0].instance
        for images in chosen.values()
    )


def _volumes(slices: list[_Image]) -> list[list[_Image]]:
    """Groups the slices of a series by what must not be mixed in a volume, in the order of the first of each.

    Slices that state no frame of reference are of the only one that the others state. They stay together where that
    would make more than ``MAX_VOLUMES``.
    """
    only = _agreed(image.header.frame_of_reference_uid for image in slices)
    groups: list[list[_Image]] = []
    alike: dict[tuple[Any, ...], list[list[_Image]]] = {}
    for image in slices:
        instance = image.instance
        size = (instance.pixels.rows, instance.pixels.columns)
        facts = (
            image.header.modality,
            size,
            instance.is_localizer,
            instance.kind,
            image.header.frame_of_reference_uid or only,
            instance.pixels.rescale_type,
            instance.pixels.modality_lut is None,
        )
        candidates = alike.setdefault(facts, [])
        group = next((group for group in candidates if _in_one_grid(group[0].instance, instance)), None)
        if group is None:
            candidates.append(group := [])
            groups.append(group)
        if len(groups) > MAX_VOLUMES:
            return [slices]
        group.append(image)
    volumes = [one for group in groups for one in _passes(group)]
    return volumes if len(volumes) <= MAX_VOLUMES else [slices]


def _in_one_grid(first: Instance, other: Instance) -> bool:
    """Whether two slices have one orientation and one spacing."""

    def close(one: Sequence[float] | None, two: Sequence[float] | None, tolerance: float) -> bool:
        one, two = one or (), two or ()
        return len(one) == len(two) and all(abs(a - b) <= tolerance for a, b in zip(one, two, strict=True))

    here, there = first.geometry, other.geometry
    return close(here.orientation, there.orientation, ORIENTATION_TOLERANCE) and close(
        here.pixel_spacing, there.pixel_spacing, SPACING_TOLERANCE_MM
    )


def _passes(slices: list[_Image]) -> list[list[_Image]]:
    """Splits slices that were acquired in several passes over the same places.

    Passes are told apart by one of the values of ``DicomHeader.passes``, or by Image Type (magnitude and phase), where
    that gives as many passes as slices share a place, or acquisitions that lie interleaved, and leaves no place
    repeated within a pass. Values that differ from slice to slice (an acquisition each, a measured time) tell no passes
    apart.
    """
    places = [_along_normal(image) for image in slices]
    if len(slices) < 2 or None in places:
        return [slices] if slices else []
    place = dict(zip(map(id, slices), np.array(places, float), strict=True))
    most = _most_at_one_place([place[id(image)] for image in slices])
    for which in range(len(slices[0].header.passes) + 1):
        passes: dict[object, list[_Image]] = {}
        for image in slices:
            passes.setdefault((*image.header.passes, image.instance.image_type)[which], []).append(image)
        spans = [[place[id(image)] for image in one] for one in passes.values()]
        if len(passes) < 2 or any(_most_at_one_place(span) > 1 for span in spans):
            continue
        if len(passes) == most or (most == 1 and which == 0 and _are_interleaved(spans)):
            return list(passes.values())
    return [slices]


def _are_interleaved(spans: Sequence[Sequence[float]]) -> bool:
    return all(min(a) < max(b) and min(b) < max(a) for a, b in combinations(spans, 2))


def _along_normal(image: _Image) -> float | None:
    """Returns the position of a slice along its normal, mm; ``None`` where it states none."""
    geometry = image.instance.geometry
    if geometry.orientation is None or geometry.position is None:
        return None
    return float(np.cross(geometry.orientation[:3], geometry.orientation[3:]) @ np.array(geometry.position))


def _most_at_one_place(places: Sequence[float]) -> int:
    """Returns how many slices share the place that most share."""
    breaks = np.flatnonzero(np.diff(np.sort(places)) > POSITION_TOLERANCE_MM)
    return int(np.diff([-1, *breaks, len(places) - 1]).max())


def _is_slice(image: _Image) -> bool:
    pixels = image.instance.pixels
    return image.header.modality in _STACKED and pixels.frames == 1 and pixels.samples == 1


def _picture_study(pictures: list[tuple[int, Instance, str]], files: list[FileOutcome]) -> list[Study]:
    unique: dict[str, tuple[int, Instance, str]] = {}
    for place, instance, picture in pictures:
        kept = unique.setdefault(instance.sop_instance_uid, (place, instance, picture))
        if kept[0] != place:
            files[place] = replace(files[place], status="refused", reason="the content of a file that stands before it")
    if not unique:
        return []
    study_uid = content_uid("study", *sorted(unique))
    series = []
    for uid, (place, instance, picture) in unique.items():
        series_uid = content_uid("series", uid)
        files[place] = replace(files[place], study_uid=study_uid, series_uid=series_uid)
        description = nifti.stem(files[place].file) if picture == nifti.FORMAT else None
        one = Series(series_uid=series_uid, instances=(instance,), description=description, source_format=picture)
        series.append(one)
    return [Study(study_uid=study_uid, series=tuple(series))]


def _refuse(files: list[FileOutcome], image: _Image, reason: str) -> None:
    _tell(files, image, reason)
    files[image.place] = replace(files[image.place], status="refused")


def _tell(files: list[FileOutcome], image: _Image, reason: str) -> None:
    """Adds ``reason`` after what the file's outcome says already."""
    earlier = files[image.place].reason
    files[image.place] = replace(files[image.place], reason=f"{earlier}; {reason}" if earlier else reason)


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def _agreed(values: Iterable[Any]) -> Any:
    """Returns the value that all who state one state, else ``None``."""
    stated = set(values) - {None}
    return stated.pop() if len(stated) == 1 else None


def _lowest(ages: Iterable[float | None]) -> float | None:
    """Returns the lowest stated age in years: where files disagree, a child must not pass as an adult."""
    return min((age for age in ages if age is not None), default=None)
