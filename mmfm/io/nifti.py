"""NIfTI-1 and NIfTI-2 in one file (.nii, .nii.gz) as Instances: the header first, the values late.

The header says where voxels lie in RAS millimetres and is turned to LPS; it states no modality and no patient, so that
who reads it has to say the first (``with_modality``). The file is untrusted: sizes are checked on the header, and no
more is inflated than it states. Values are read by numpy and zlib alone.

    (study,) = read_studies("flair.nii.gz")
    study = with_modality(study, "MR")
"""

from __future__ import annotations

import gzip
import io
import itertools
import math
import zlib
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from mmfm.errors import ConfigError, ReadError
from mmfm.io.elements import MAX_MM
from mmfm.io.sources import MAX_PIXEL_BYTES, MAX_RATIO, RATIO_FREE, Source, content_digest, content_uid
from mmfm.study import Geometry, Instance, PixelHeader, Study

FORMAT = "NIFTI"
_SIZES = {348: 1, 540: 2}
"""sizeof_hdr -> version."""
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Unit of space in xyzt_units -> mm; unknown is taken as mm, as all writers mean it."""
_CODES = {
    1: "scanner coordinates",
    2: "aligned to another image",
    3: "Talairach space",
    4: "MNI space",
    5: "a template",
}
_MAX_SCALE = 1e19
"""As in DICOM: what comes out is still a number in float32."""


def is_nifti(stream: BinaryIO) -> bool:
    """Returns whether ``stream`` starts as NIfTI does, packed by gzip or not."""
    head = _head(stream)
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:12] in (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")


def stem(name: str) -> str:
    """Returns a file's name without folder and endings: for "sub-01_FLAIR.nii.gz" what may tell its sequence."""
    return PurePosixPath(name.replace("\\", "/").rpartition("!")[2]).name.removesuffix(".gz").removesuffix(".nii")


def read_stream(source: Source, stream: BinaryIO) -> Instance:
    """Returns the Instance of the NIfTI file in ``stream``, which ``source`` can open again.

    Its frames are the planes of the third voxel axis, its rows run along the second, its columns along the first: as
    the file stores them. The sform is used where its code is above 0, else the qform, else the place is not stated.

    Raises:
        ReadError: it is a pair of files, holds more than one volume, colour or complex numbers, is cut short, or states
            what cannot be used.
    """
    try:
        found = _layout(stream)
    except ReadError as error:
        raise ReadError(source.name, expected=error.expected, found=error.found, fix=error.fix) from None
    return Instance(
        sop_instance_uid=content_uid("instance", content_digest(stream)),
        pixels=found.pixels,
        geometry=found.geometry,
        affine=found.affine,
        notes=found.notes,
        load=lambda: _load(source, found),
    )


def with_modality(study: Study, modality: str) -> Study:
    """Returns ``study`` with the modality of its NIfTI files, which these cannot state, as the user says it.

    Values of a CT are then taken as Hounsfield units, which converters from DICOM write. A model checks that they can
    be.

    Args:
        study: with at least one NIfTI series.
        modality: CT or MR.

    Raises:
        ConfigError: the modality is another, or there is no such series.
    """
    if modality not in ("CT", "MR"):
        raise ConfigError("modality", expected="CT or MR", found="another", fix="give one of them")
    if all(series.source_format != FORMAT for series in study.series):
        raise ConfigError(
            "modality",
            expected="NIfTI files, which state none",
            found="files that state their own",
            fix="leave it out",
        )
    return replace(
        study,
        series=tuple(
            replace(series, modality=modality) if series.source_format == FORMAT else series for series in study.series
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """What a header says, checked."""

    dtype: str
    """As stored, such as "<i2"."""
    offset: int
    """Of the values, bytes after inflating."""
    pixels: PixelHeader
    geometry: Geometry
    affine: tuple[tuple[float, ...], ...] | None
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return self.pixels.frames * self.pixels.rows * self.pixels.columns * np.dtype(self.dtype).itemsize


def _head(stream: BinaryIO) -> bytes:
    """Returns the first 544 bytes, unpacked."""
    stream.seek(0)
    head = stream.read(4096)
    stream.seek(0)
    if head[:2] != b"\x1f\x8b":
        return head[:544]
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(head, 544)
    except zlib.error:
        return b""


def _layout(stream: BinaryIO) -> _Layout:
    head = _head(stream)
    sizes = [int.from_bytes(head[:4], order) for order in ("little", "big")]
    version = next((_SIZES[size] for size in sizes if size in _SIZES), 0)
    if not version or len(head) < (348, 540)[version - 1]:
        raise _bad("a header of 348 or 540 bytes", "another size")
    if head[344:347] == b"ni1" or head[4:7] == b"ni2":
        raise _bad("header and values in one file", "a pair (.hdr, .img)", fix="convert it to .nii.gz")
    try:
        header = _parsed(head, version)
        dims = [int(value) for value in header["dim"]]
        dtype = header.get_data_dtype()
        slope, intercept = (None if value is None else float(value) for value in header.get_slope_inter())
        offset = float(header["vox_offset"])
    except ReadError:
        raise
    except Exception as error:  # nibabel raises many kinds on malformed values
        raise _bad("a header that can be used", f"another ({type(error).__name__})") from None
    if not 1 <= dims[0] <= 7 or any(size < 1 for size in dims[1 : dims[0] + 1]):
        raise _bad("1 to 7 dimensions of at least 1", "others")
    columns, rows, slices, *more = dims[1 : dims[0] + 1] + [1] * max(0, 3 - dims[0])
    if math.prod(more) > 1:
        raise _bad("one volume", f"{math.prod(more)} in one file", fix="split it into files of three dimensions")
    if dtype.kind not in "iuf" or dtype.names or dtype.itemsize > 8:
        kind = "complex numbers" if dtype.kind == "c" else "colour" if dtype.names else "another type"
        raise _bad("whole numbers or floats of at most 64 bits", kind, fix="convert it")
    scale = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    if not all(abs(value) <= _MAX_SCALE for value in scale):
        raise _bad(f"a slope and intercept of at most {_MAX_SCALE:g}", "others")
    if not 352 <= offset <= MAX_PIXEL_BYTES or offset % 1:
        raise _bad("values behind the header", "another place")
    if max(rows, columns, slices) > 65535 or (size := rows * columns * slices * dtype.itemsize) > MAX_PIXEL_BYTES:
        raise _bad(f"at most {MAX_PIXEL_BYTES >> 30} GB of voxels", f"{slices} x {rows} x {columns}")
    _check_size(stream, int(offset) + size)
    geometry, affine, notes = _place(header, (slices, rows, columns))
    return _Layout(
        dtype=dtype.str,
        offset=int(offset),
        pixels=PixelHeader(
            rows=rows,
            columns=columns,
            frames=slices,
            bits_stored=8 * dtype.itemsize,
            signed=dtype.kind == "i",
            rescale_slope=scale[0],
            rescale_intercept=scale[1],
        ),
        geometry=geometry,
        affine=affine,
        notes=notes,
    )


def _parsed(head: bytes, version: int) -> Any:
    from nibabel.nifti1 import Nifti1Header  # half a second, which reading DICOM does not need
    from nibabel.nifti2 import Nifti2Header

    header = Nifti1Header(head[:348], check=False) if version == 1 else Nifti2Header(head[:540], check=False)
    if header["pixdim"][0] not in (-1, 1):
        header["pixdim"][0] = 1  # as the standard wants 0 to be read
    return header


def _check_size(stream: BinaryIO, wanted: int) -> None:
    """Refuses what is cut short, and what would inflate too far, before anything is read."""
    stream.seek(0)
    packed = stream.read(2) == b"\x1f\x8b"
    there = stream.seek(0, io.SEEK_END)
    if not packed and there < wanted:
        raise _bad(f"{wanted} bytes", f"{there} (cut short)", fix="copy the file again")
    if packed and wanted > max(RATIO_FREE, MAX_RATIO * there):
        raise _bad(
            f"at most {MAX_RATIO} unpacked bytes for each packed one", "more", fix="unpack it yourself if you trust it"
        )


def _place(
    header: Any, shape: tuple[int, int, int]
) -> tuple[Geometry, tuple[tuple[float, ...], ...] | None, tuple[str, ...]]:
    """Returns the spacing with its source, the affine (frame, row, column, 1) -> LPS mm, and warnings."""
    unit = int(header["xyzt_units"]) & 7
    factor = _MILLIMETRES.get(unit, 1.0)
    codes = {name: int(header[f"{name}_code"]) for name in ("sform", "qform")}
    which = next((name for name, code in codes.items() if code > 0), None)
    if which is None:
        told = "neither sform nor qform is stated: no place in the patient, left and right not known"
        return _without_place(header, factor), None, (told,)
    affine = _affine(header, which, factor)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    notes = []
    if which == "sform" and codes["qform"] > 0:
        try:
            other = _affine(header, "qform", factor)
        except ReadError:
            other = None
        if other is not None and np.linalg.det(affine[:3, :3]) * np.linalg.det(other[:3, :3]) < 0:
            told = "sform and qform contradict each other on left and right: no place in the patient"
            return _without_place(header, factor), None, (told,)
        # At the corners: a turn that hardly changes the matrix moves the far ones most.
        corners = np.array([[*corner, 1] for corner in itertools.product(*((0, size - 1) for size in shape))])
        if other is None or np.abs(corners @ (other - affine).T).max() > 0.5 * lengths.min():
            notes.append("sform and qform state different places: the sform is used")
    stated = np.abs(header["pixdim"][3:0:-1].astype(float)) * factor
    if np.any(np.abs(stated - lengths) > 0.05 * lengths):
        notes.append(f"pixdim and {which} state different spacings: that of the {which} is used")
    if codes[which] > 2:
        notes.append(
            f"the {which} states a place in {_CODES.get(codes[which], 'an unknown space')}, not in the patient"
        )
    if unit not in _MILLIMETRES:
        notes.append("the unit of space is not known: taken as mm")
    geometry = Geometry(
        pixel_spacing=(float(np.linalg.norm(affine[:3, 1])), float(np.linalg.norm(affine[:3, 2]))),
        spacing_source=f"the {which} ({_CODES.get(codes[which], 'an unknown space')})",
    )
    return geometry, tuple(tuple(map(float, row)) for row in affine), tuple(notes)


def _without_place(header: Any, factor: float) -> Geometry:
    sizes = [abs(float(value)) * factor for value in header["pixdim"][1:4]]
    usable = all(0 < size <= MAX_MM for size in sizes)
    return Geometry(
        pixel_spacing=(sizes[1], sizes[0]) if usable else None,
        spacing_source="pixdim" if usable else None,
        slice_thickness=sizes[2] if usable else None,
    )


def _affine(header: Any, which: str, factor: float) -> np.ndarray:
    try:
        ras = np.array(header.get_sform() if which == "sform" else header.get_qform(), float)
    except Exception:  # a quaternion that is none
        raise _bad(f"a {which} that is a place", "another") from None
    ras[:3] *= factor
    affine = (_TO_LPS @ ras)[:, [2, 1, 0, 3]]
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    # A voxel must have a volume; the factor says how flat a sheared one may be.
    if not np.all(np.abs(affine) <= MAX_MM) or abs(np.linalg.det(affine[:3, :3])) <= 1e-3 * np.prod(lengths):
        raise _bad(f"a {which} whose axes span a volume", "another")
    return affine


def _load(source: Source, layout: _Layout) -> np.ndarray:
    """Returns (frames, rows, columns) as stored, in the byte order of this machine."""
    with source.open() as stream:
        packed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        try:
            with gzip.GzipFile(fileobj=stream) if packed else stream as content:
                content.seek(layout.offset)
                values = content.read(layout.size)
                if packed:
                    content.read(1)  # the checksum is compared at the end
            if len(values) < layout.size:
                raise EOFError
        except (OSError, EOFError, zlib.error):
            raise ReadError(
                source.name, expected="a complete NIfTI file", found="damage or an early end", fix="copy the file again"
            ) from None
    dtype = np.dtype(layout.dtype)
    shape = (layout.pixels.frames, layout.pixels.rows, layout.pixels.columns)
    return np.frombuffer(values, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _bad(expected: str, found: str, fix: str = "save it again from its source") -> ReadError:
    return ReadError("", expected=f"NIfTI with {expected}", found=found, fix=fix)
