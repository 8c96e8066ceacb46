"""Which series of a study a volume model reads, by rules on headers alone, and one line of reason for every series.

    choice = choose_series(study, channels=("T1", "T2", "FLAIR", "DWI"))
    for line in choice.reasons: print(line)    # "series 3: axial MR T2, 3 mm, 48 slices: taken as T2"

Descriptions and protocol names are searched for words and never repeated: they may hold a name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmfm.errors import ConfigError, ScopeError
from mmfm.study import POSITION_TOLERANCE_MM, Acquisition, Geometry, Series, Study

MIN_SLICES = 5
"""Fewer are pictures, not a volume."""
OBLIQUE_DEGREES = 35.0
"""A normal further than this from each axis of the patient is oblique; axial slices of heads are tilted by 20 or so."""
SMALLEST_USEFUL_MM = 1.0
"""Slices thinner than this show a model at 1.5 to 2 mm nothing more."""
THIN_CT_MM, THIN_MR_MM = 3.0, 2.0
"""A CT thicker than this hides small nodules; an MR thinner than this can be read in any plane."""
SAME_EXTENT = 0.8
"""A series that is shorter than this part of the longest one covers less of the body."""
LOWEST_DIFFUSION = 500.0
"""s/mm2; below it, a diffusion series shows T2 more than diffusion."""

_MODALITIES = {"CT", "MR", "PT", "NM", "US", "CR", "DX", "MG", "XA", "RF", "OT", "SC", "SEG", "RTDOSE", "XC", "ES"}
_PLANES: tuple[Literal["sagittal", "coronal", "axial"], ...] = ("sagittal", "coronal", "axial")
_PROJECTIONS = {"MIP", "MINIP", "MNIP", "PROJECTION IMAGE", "SUBTRACTION", "SUB", "VRT", "SSD", "VOLREN"}
"""Values of Image Type that name no slices as they were acquired."""
_OTHER_MAPS = {"FA", "TENSOR", "SWI", "MAG_SWI", "ASL", "PERFUSION", "RCBF", "RCBV", "CBF", "CBV", "MTT", "TTP", "FMRI"}
_OTHER_MAPS |= {"EADC", "T1 MAP", "T2 MAP", "T2STAR MAP", "B0 MAP"}
_NOT_BRAIN = re.compile(  # on text as _plain gives it
    r"\b(e?swi\w*|swan|suscept\w*|venbold|mip|minip|mra|mrv|\w*angio\w*|\dd?tof|tof|pca?|inhance|perf\w*|dsc|dce"
    r"|p?c?asl|r?cbf|r?cbv|mtt|ttp|tmax|bold|fmri|loc|locali[sz]er\w*|scout|aa\w*scout|survey|smartbrain|3 ?pl(ane)?"
    r"|calib\w*|asset cal|b[01]map|field ?map\w*|shim\w*|spectro\w*|svs|csi|mrs|fractional|colfa|tensor|tracto\w*|stir"
    r"|ciss|fiesta|trufi\w*|b?ssfp|bffe|pha images|mag images|phase images?|subtr\w*|maps?|mapping|star"
    r"|(?<!\b3 )dir(?! [aprl]{2}\b)|[a-z]?t2star\w*|hemo\w*|haemo\w*|medic|merge|psir|inv[12])\b"
    r"|\bfa$|\bt2\w* .*\b(gre|ffe|fl2d|fl3d)\b"
)
"""What is none of the sequences that are told apart."""
_T1 = re.compile(r"\b(ax|sag|cor|tra|cube|[a-z])?t1(?!\d)|\b(mprage|mp2rage|bravo|f?spgr|tfl|tfl3d|vibe)\b")
_T2 = re.compile(r"\b(ax|sag|cor|tra|cube|[a-z])?t2(?!\d)")
_FLAIR = re.compile(r"flair|\bdark ?fluid|\bflr\b")
_DIFFUSION = re.compile(
    r"\b[a-z]?dwi(?:b?\d+)?\b|\bdw\b|\b\w*diff\w*|\btracew?\b|\bdti\b|\bb ?(?:[5-9]00|1[0-9]00|2[05]00)\b"
)
_ADC = re.compile(r"\b[bd]?adc\b|apparent diffusion")
_WITH = re.compile(
    r"\b(post|postcontrast|postgad\w*|gd|gad\w*|km|ce|contrast|kontrast|mdc|enhanced|cect|portal|portven\w*|venous"
    r"|arterial|art)\b|\bt1\w*(c|ce|gd|km)\b"
)
_WITH_AND_WITHOUT = re.compile(r"\b(w|with) (and )?(wo|w o|without)\b")
_NO_AGENT = re.compile(
    r"\b(pre|without|w o|wo|ohne|non?|not)( iv)? (contrast|kontrast|km|gd|gad\w*|ce|mdc|enhanced|enhancement)\b"
)
_WITHOUT = re.compile(r"\b(pre|precontrast|nativ\w*|non ?contrast|noncon\w*|nc|without|w o|wo|ohne|unenhanced|plain)\b")
_SHARP_WORDS = re.compile(r"\b(lung\w*|bone\w*|knochen|sharp|hrct|hr|edge)\b")
_SOFT_WORDS = re.compile(r"\b(soft\w*|mediast\w*|weich\w*|std|standard|smooth|brain|abd\w*|liver)\b")
_NOT_BODY = re.compile(
    r"\b(mip|minip|vrt?|3d ?vol\w*|iodine|perf\w*|r?cbf|r?cbv|mtt|tmax|ttp|monitoring|premonitoring|tracker|bolus"
    r"|smart ?prep|subtr\w*|scout|topo\w*|locali[sz]er|surview|dose (report|record|info\w*|summary|page|sheet))\b"
)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The series that a model reads, and what became of the others."""

    chosen: dict[str, Series]
    """Channel, such as "CT" or "FLAIR" -> the series."""
    reasons: tuple[str, ...]
    """One line for every series of the study, in its order; without UIDs or free text of headers."""


def plane_of(series: Series) -> Literal["axial", "coronal", "sagittal", "oblique"] | None:
    """Returns the plane of the slices by their normal, ``None`` where no place is stated."""
    normal = _normal(series)
    if normal is None:
        return None
    axis = int(np.argmax(np.abs(normal)))
    return _PLANES[axis] if abs(normal[axis]) >= math.cos(math.radians(OBLIQUE_DEGREES)) else "oblique"


def sequence_of(series: Series) -> str | None:
    """Returns "CT", or what an MR series shows: "T1", "T1C" (after contrast), "T2", "FLAIR", "DWI" or "ADC".

    ``None`` where it is none of these or where that cannot be told. In this order:

    1. A localiser, a phase, real or imaginary image, a mix of those, a projection (MIP) or another map: ``None``.
    2. ADC by Image Type or words; the exponential ADC is neither ADC nor DWI.
    3. DWI by a b-value of 500 s/mm2 or more, or by words where none is stated. A lower b-value: ``None``.
    4. Words of what is none of these (SWI, T2*, TOF and other angiography, perfusion, STIR, CISS ...): ``None``.
    5. Timing, where it leaves no doubt; spin echo with inversion at 1500 ms or later and TE from 60 ms is FLAIR, with
       inversion before 400 ms STIR, between them with TE under 40 ms T1; without inversion, TE from 60 and TR from
       1800 ms is T2, TE to 30 and TR to 1200 ms is T1, TE to 45 and TR from 1800 ms proton density; gradient echo is
       T1 where it is prepared by an inversion at 400 to 1500 ms and TE is under 10 ms, else in doubt; so is echo
       planar.
    6. Words: FLAIR and dark fluid, but "T1 FLAIR" is T1; TIRM alone may be STIR and counts as FLAIR by its timing
       alone; T1, MPRAGE, BRAVO ...; T2. Those of the description before those of the protocol. Timing outdoes words,
       but for FLAIR against T2, where the inversion time is often not stated.
    """
    if series.modality == "CT":
        return "CT"
    if series.modality != "MR" or not _is_magnitude(series) or any(i.is_localizer for i in series.instances):
        return None
    kinds, made = _kinds(series), series.acquisition
    words = _by_words(series.description) or _by_words(made.protocol)
    if "ADC" in kinds or (words == "ADC" and not kinds & {"EADC", "EXP"}):
        return "ADC"
    if kinds & (_PROJECTIONS | _OTHER_MAPS):
        return None
    diffusion = words == "DWI" or bool(kinds & {"DIFFUSION", "TRACEW"}) or bool(made.b_value)
    if diffusion:
        return "DWI" if made.b_value is None or made.b_value >= LOWEST_DIFFUSION else None
    if words == "other":
        return None
    timing = _by_timing(made)
    if words in ("FLAIR", "TIRM") and timing in ("T2", None):
        return "FLAIR" if words == "FLAIR" else None
    name = timing or words
    if name == "T1":
        return "T1C" if _has_contrast(series) else "T1"
    return name if name in ("T2", "FLAIR") else None


def choose_series(study: Study, *, channels: tuple[str, ...], only: tuple[str, ...] = ()) -> Choice:
    """Chooses the series that a model reads as its channels.

    Never taken are localisers, screenshots (without a place in the patient), colours, series with several slices at one
    place (phases, b-values or echoes that headers do not tell apart), CT without Hounsfield units, and of MR phase
    images or mixes of them. Left out unless named are series of fewer than ``MIN_SLICES`` slices and projections such
    as MIP. Of the others the best is taken, by the first of these in which they differ; of what is alike in all, the
    first in the study:

    - CT: original before derived (reformats); axial before other planes; 0.8 of the longest extent before shorter ones;
      at most 3 mm before thicker; soft kernel before sharp; thinner (but all below 1 mm are alike); after contrast
      before without, of heads the other way round; more slices.
    - MR, channel by channel (``sequence_of``): of DWI the b-value next to 1000 s/mm2; original before derived, but for
      DWI and ADC; without contrast before with; axial, or at most 2 mm in any plane, before other planes; the longest
      extent as above; thinner; more slices.

    Args:
        study: headers alone are looked at.
        channels: names as ``sequence_of`` has them. T1 takes a series after contrast only where that is named.
        only: Series Instance UIDs or places in the study ("#3"): what the user wants to be read, and nothing else. A
            UID whose series was split stands for its best part.

    Raises:
        ConfigError: a series that was named is not there or cannot be read, or two claim one channel.
        ScopeError: no series of the study fits.
    """
    claims = [_claim(study, name, channels) for name in only]
    outcome: dict[int, str] = {}
    candidates: dict[str, list[int]] = {}
    for place, series in enumerate(study.series):
        named = [channel for places, channel in claims if place in places]
        if only and not named:
            outcome[place] = "left out, another was named"
        elif why := _unusable(series) or (None if named else _unsuited(series, channels)):
            outcome[place] = f"left out, {why}"
        else:
            channel = named[0] if named else sequence_of(series)
            assert channel is not None, "a series without a channel is unsuited"
            candidates.setdefault(channel, []).append(place)
    if len({channel for _, channel in claims}) < len(claims):
        raise ConfigError(
            "--series", expected="one series for each channel", found="two for one", fix="name one of the two"
        )
    chosen = {}
    for channel in channels:
        if places := candidates.get(channel):
            best, others = _best(study, channel, places)
            chosen[channel] = study.series[best]
            outcome |= {best: f"taken as {channel}"} | {place: f"left out, {why}" for place, why in others.items()}
    reasons = tuple(f"series {n}: {_words(s)}: {outcome[n - 1]}" for n, s in enumerate(study.series, start=1))
    if not chosen:
        more = f"; and {len(reasons) - 6} more" if len(reasons) > 6 else ""
        raise ScopeError(
            "the study",
            expected=f"a series that fits {' or '.join(channels)}",
            found="; ".join(reasons[:6]) + more,
            fix="give another study; no draft is made",
        )
    return Choice(chosen=chosen, reasons=reasons)


def named_places(study: Study, name: str) -> set[int]:
    """Returns the places in the study, from 0, that a name stands for: a Series Instance UID, or "#3".

    Raises:
        ConfigError: no series of the study has that name.
    """
    count = len(study.series)
    if (digits := name.removeprefix("#")).isdecimal():
        places = {int(digits) - 1} & set(range(count))
    else:
        uids = [series.series_uid for series in study.series]
        places = {n for n in range(count) if uids[n] == name} or {
            n for n in range(count) if uids[n].partition("#")[0] == name
        }
    if not places:
        raise ConfigError(
            "--series",
            expected=f"a Series Instance UID of the study, or #1 to #{count}",
            found="another",
            fix="run `mmfm inspect` on the study to see its series",
        )
    return places


def _claim(study: Study, name: str, channels: tuple[str, ...]) -> tuple[set[int], str]:
    """Returns the places in the study that a name stands for, and the channel that the user claims for it."""
    places = named_places(study, name)
    usable = {place for place in places if _unusable(study.series[place]) is None}
    shown = f"series {min(places) + 1}: {_words(study.series[min(places)])}"
    if not usable:
        why = _unusable(study.series[min(places)])
        raise ConfigError("--series", expected="a volume", found=f"{shown}: {why}", fix="name another series")
    sequences = {sequence_of(study.series[place]) for place in usable}
    if "T1" in channels and "T1C" not in channels:
        sequences = {"T1" if sequence == "T1C" else sequence for sequence in sequences}
    fitting = [channel for channel in channels if channel in sequences]
    modality = "CT" if channels == ("CT",) else "MR"
    if not fitting and len(channels) == 1 and all(study.series[place].modality == modality for place in usable):
        fitting = list(channels)  # the user says what it is
    if len(fitting) != 1:
        raise ConfigError(
            "--series",
            expected=f"a series that is one of {', '.join(channels)}",
            found=shown,
            fix="name another series",
        )
    return {place for place in usable if len(channels) == 1 or _fits(study.series[place], fitting[0])}, fitting[0]


def _fits(series: Series, channel: str) -> bool:
    sequence = sequence_of(series)
    return sequence == channel or (sequence, channel) == ("T1C", "T1")


def _unusable(series: Series) -> str | None:
    """Returns why no one should read ``series`` as a volume, if so."""
    first = series.instances[0]
    if series.modality not in ("CT", "MR"):
        return "no modality stated" if series.modality is None else "another modality"
    facts = (
        ("a localiser", any(i.is_localizer for i in series.instances)),
        ("a screenshot", any(i.is_screenshot for i in series.instances) and plane_of(series) is None),
        ("in colour", first.pixels.samples != 1),
        ("a mosaic", any(i.is_mosaic for i in series.instances)),
        ("not in Hounsfield units", series.modality == "CT" and not _is_hu(series)),
        ("a phase image or a mix of several", series.modality == "MR" and not _is_magnitude(series)),
        ("several slices at one place: not one volume", _repeats_places(series)),
    )
    return next((words for words, holds in facts if holds), None)


def _unsuited(series: Series, channels: tuple[str, ...]) -> str | None:
    """Returns why ``series`` is not taken unless it is named."""
    sequence = sequence_of(series)
    slices = _slices(series)
    text = f"{_plain(series.description)} {_plain(series.acquisition.protocol)}"
    if sequence is None:
        return "its sequence is another, or cannot be told"
    if sequence not in channels:
        return "not wanted" if sequence != "T1C" else "with contrast"
    if slices < MIN_SLICES:
        return f"fewer than {MIN_SLICES} slices"
    if _kinds(series) & _PROJECTIONS or (sequence == "CT" and _NOT_BODY.search(text)):
        return "a projection or a map, no slices as they were acquired"
    return None


def _best(study: Study, channel: str, places: list[int]) -> tuple[int, dict[int, str]]:
    """Returns the best of ``places``, and for each of the others in what it is worse."""
    left = places
    worse: dict[int, str] = {}
    for words, rank in _RULES["CT" if channel == "CT" else "MR"]:
        ranks = rank([study.series[place] for place in left])
        best = min(ranks)
        worse |= {place: words for place, value in zip(left, ranks, strict=True) if value > best}
        left = [place for place, value in zip(left, ranks, strict=True) if value == best]
    return left[0], worse | dict.fromkeys(left[1:], "as good as the one taken, and later in the study")


def _each(rank: Callable[[Series], float]) -> Callable[[Sequence[Series]], list[float]]:
    return lambda series: [rank(one) for one in series]


def _is_derived(series: Series) -> bool:
    diffusion = sequence_of(series) in ("DWI", "ADC")  # both are computed from what was acquired
    return not diffusion and any(i.image_type[:1] == ("DERIVED",) for i in series.instances)


def _is_short(series: Sequence[Series]) -> list[float]:
    extents = [_slices(one) * (_step(one) or 0.0) for one in series]
    return [float(extent < SAME_EXTENT * max(extents)) for extent in extents]


def _thickness(series: Series) -> float:
    """Returns mm to half a millimetre, as far as more or less of it is worse."""
    step = _step(series)
    return math.inf if step is None else round(2 * max(step, SMALLEST_USEFUL_MM)) / 2


def _wrong_phase(series: Series) -> bool:
    text = f"{series.body_part or ''} {_plain(series.description)}".lower()
    return bool(_has_contrast(series)) == bool(re.search(r"\b(head|brain|skull|neuro\w*|crani\w*)\b", text))


def _is_in_another_plane(series: Series) -> bool:
    return plane_of(series) != "axial"


def _from_b1000(series: Series) -> float:
    b_value = series.acquisition.b_value
    return 0.0 if sequence_of(series) != "DWI" else 500.0 if b_value is None else abs(b_value - 1000)


_RULES: dict[str, tuple[tuple[str, Callable[[Sequence[Series]], list[float]]], ...]] = {
    "CT": (
        ("derived from another, such as a reformat", _each(_is_derived)),
        ("another plane than axial", _each(_is_in_another_plane)),
        ("covers less of the body", _is_short),
        ("thicker slices", _each(lambda one: _thickness(one) > THIN_CT_MM)),
        ("sharp kernel", _each(lambda one: bool(_is_sharp(one)))),
        ("thicker slices", _each(_thickness)),
        ("another phase of contrast", _each(_wrong_phase)),
        ("fewer slices", _each(lambda one: -_slices(one))),
    ),
    "MR": (
        ("another b-value", _each(_from_b1000)),
        ("derived from another, such as a reformat", _each(_is_derived)),
        ("with contrast", _each(lambda one: bool(_has_contrast(one)))),
        ("another plane", _each(lambda one: _is_in_another_plane(one) and _thickness(one) > THIN_MR_MM)),
        ("covers less of the body", _is_short),
        ("thicker slices", _each(_thickness)),
        ("fewer slices", _each(lambda one: -_slices(one))),
    ),
}


def _words(series: Series) -> str:
    """Returns a series in words that hold nothing of a header's free text."""
    modality = series.modality if series.modality in _MODALITIES else "another modality" if series.modality else None
    sequence = sequence_of(series) if series.modality == "MR" else None
    sharp = _is_sharp(series) if series.modality == "CT" else None
    step, slices, b_value = _step(series), _slices(series), series.acquisition.b_value
    parts = (
        " ".join(part for part in (plane_of(series), modality or "no modality", sequence) if part),
        f"b {b_value:g}" if b_value is not None else "",
        "with contrast" if _has_contrast(series) and sequence != "T1C" else "",
        f"{step:.3g} mm" if step else "",
        "" if sharp is None else "sharp kernel" if sharp else "soft kernel",
        f"{slices} slice{'s' * (slices != 1)}",
    )
    return ", ".join(part for part in parts if part)


def _slices(series: Series) -> int:
    return sum(instance.pixels.frames for instance in series.instances)


def _geometries(series: Series) -> Iterator[Geometry]:
    for instance in series.instances:
        yield from (frame.geometry for frame in instance.frames) if instance.frames else (instance.geometry,)


def _normal(series: Series) -> np.ndarray | None:
    """Returns the unit normal of the first slice, LPS."""
    affine = series.instances[0].affine
    orientation = next(_geometries(series)).orientation
    if affine is not None:
        normal = np.cross(np.array(affine)[:3, 2], np.array(affine)[:3, 1])
    elif orientation is not None:
        normal = np.cross(orientation[:3], orientation[3:])
    else:
        return None
    length = float(np.linalg.norm(normal))
    return normal / length if length > 0 else None


def _along_normal(series: Series) -> np.ndarray | None:
    """Returns the places of all slices along the normal in mm, in order; ``None`` where one is not stated."""
    normal, positions = _normal(series), [geometry.position for geometry in _geometries(series)]
    if normal is None or len(positions) != _slices(series) or None in positions:
        return None
    return np.sort(np.array(positions, float) @ normal)


def _step(series: Series) -> float | None:
    """Returns the usual distance of slices in mm, or their thickness where that is more or all that is stated."""
    normal, affine, along = _normal(series), series.instances[0].affine, _along_normal(series)
    thickness = next(_geometries(series)).slice_thickness or 0.0
    if normal is not None and affine is not None:
        return abs(float(np.array(affine)[:3, 0] @ normal))
    step = float(np.median(np.diff(along))) if along is not None and len(along) > 1 else 0.0
    found = max(step, thickness)
    return found if found > 0 else None


def _repeats_places(series: Series) -> bool:
    along = _along_normal(series)
    return along is not None and bool(np.any(np.diff(along) < POSITION_TOLERANCE_MM))


def _is_hu(series: Series) -> bool:
    headers = [frame.pixels for instance in series.instances for frame in (instance.frames or (instance,))]
    return series.source_format == "NIFTI" or all(header.rescale_type == "HU" for header in headers)


def _is_magnitude(series: Series) -> bool:
    return series.acquisition.component in (None, "MAGNITUDE")


def _kinds(series: Series) -> set[str]:
    """Returns what Image Type says behind its first two values, in capitals."""
    return {value.upper() for instance in series.instances for value in instance.image_type[2:]}


def _plain(text: str | None) -> str:
    """Returns words in small letters with one space between them; "T2*" is t2star."""
    lower = re.sub(r"(?<=t2)w?\*|(?<=t2)[ _-]*star", "star", (text or "").lower())
    return " ".join(re.findall(r"[a-z0-9]+", lower))


def _by_words(text: str | None) -> str | None:
    """Returns what words say: a sequence, "TIRM", "other", or ``None`` where they say nothing."""
    plain = _plain(text)
    found = (
        ("other", bool(re.search(r"\beadc\b|exponential", plain))),
        ("ADC", bool(_ADC.search(plain))),
        ("other", bool(_NOT_BRAIN.search(plain))),
        ("DWI", bool(_DIFFUSION.search(plain))),
        ("T1", bool(_T1.search(plain))),
        ("FLAIR", bool(_FLAIR.search(plain))),
        ("TIRM", "tirm" in plain),
        ("T2", bool(_T2.search(plain))),
    )
    return next((name for name, holds in found if holds), None)


def _by_timing(made: Acquisition) -> str | None:
    """Returns what the timing says beyond doubt; rule 5 of ``sequence_of``."""
    kinds, echo, repetition = set(made.scanning_sequence), made.echo_time, made.repetition_time
    inversion = made.inversion_time if made.inversion_time and made.inversion_time > 50 else None  # some write 0
    if echo is None or "EP" in kinds or not kinds & {"SE", "GR", "IR"}:
        return None
    if kinds & {"GR"} and not kinds & {"SE"}:
        return "T1" if inversion and 400 <= inversion <= 1500 and echo < 10 else None
    if inversion:
        if inversion >= 1500:
            return "FLAIR" if echo >= 60 else None
        return "STIR" if inversion < 400 else "T1" if echo < 40 else None
    if repetition is None or "IR" in kinds:
        return None
    if repetition >= 1800:
        return "T2" if echo >= 60 else "PD" if echo <= 45 else None
    return "T1" if repetition <= 1200 and echo <= 30 else None


def _has_contrast(series: Series) -> bool | None:
    """Whether a contrast agent was given: words for "before" outdo the header, which is often filled for all series.

    "Without" beside "post" or "+C" is of something else, such as fat suppression, and "with and without" says nothing.
    """
    lower, plain = (series.description or "").lower(), _plain(series.description)
    told = _WITH.search(_NO_AGENT.sub(" ", plain)) or re.search(r"\+ ?(c|gd|km|contrast)\b|\bc\+", lower)
    if _WITHOUT.search(plain) and not told and not _WITH_AND_WITHOUT.search(plain):
        return False
    if series.acquisition.contrast is not None:
        return series.acquisition.contrast
    return True if told else None


def _is_sharp(series: Series) -> bool | None:
    """Whether a CT was reconstructed for lung or bone, by its kernel as four makers name theirs, else by words."""
    kernel = (series.acquisition.kernel or "").upper()
    if canon := re.match(r"FC(\d\d)", kernel):
        number = int(canon[1])
        return 30 <= number < 40 or 50 <= number < 60 or number >= 80
    if siemens := re.match(r"[A-Z]{1,2}(\d\d)", kernel):
        return int(siemens[1]) >= 55
    if re.search(r"LUNG|BONE|EDGE|ULTRA|SHARP", kernel) or re.fullmatch(r"L|D|E|F|Y[C-FL]", kernel):
        return True
    if kernel:
        return False
    text = _plain(series.description)
    return True if _SHARP_WORDS.search(text) else False if _SOFT_WORDS.search(text) else None
