"""A generated key in the ten action kinds of the MIDI challenge, scored on what `deidentify` writes.

Kinds: tag_retained, text_notnull, text_retained, text_removed, date_shifted, uid_changed, uid_consistent,
patid_consistent, pixels_hidden, pixels_retained. The vocabulary is this file's own.
"""

import random
from collections import Counter
from datetime import datetime

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from mmfm.io import deidentify

OPTIONS = {"retain": ["longitudinal-modified-dates", "patient-characteristics"], "clean": ["descriptors"]}
PEOPLE = (
    "Quisenberry^Odalys",
    "Thistlewood^Barnaby",
    "Oyelaran^Folake",
    "Lindqvist^Sören",
    "Smith^Mary",
    "Nguyen^Van Anh",
)
DOCTORS = ("Abernathy^Cosima", "Castellanos^Aurelio", "Jones^Peter", "Krasniqi^Arta")
DESCRIPTIONS = (
    "CHEST PA AND LATERAL",
    "CT ABDOMEN WITH CONTRAST",
    "AX T1 MPRAGE POST",
    "SAG T2 FLAIR",
    "Thorax 1.0 B70f",
)
HISTORIES = ("Hodgkin lymphoma", "Crohn disease", "Swan-Ganz catheter placed", "fracture of T12", "Bochdalek hernia")
KINDS = {
    "tag_retained",
    "text_notnull",
    "text_retained",
    "text_removed",
    "date_shifted",
    "uid_changed",
    "uid_consistent",
    "patid_consistent",
    "pixels_retained",
}


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "a.key"
    path.write_bytes(b"a key of the test, long enough")
    return path


def made(write_dicom, tmp_path, count):
    """Writes ``count`` objects; returns for each, by its picture, what was planted."""
    draw = random.Random(11)
    truth = {}
    for number in range(count):
        patient = draw.randrange(len(PEOPLE))
        person, doctor = PEOPLE[patient], draw.choice(DOCTORS)
        family, given = person.split("^")
        day = f"20{draw.randint(10, 23)}{draw.randint(1, 12):02}{draw.randint(1, 28):02}"
        us_date = f"{day[4:6]}/{day[6:]}/{day[:4]}"
        planted = {
            "PatientName": person,
            "PatientID": f"MR{patient:03}7741",
            "PatientBirthDate": f"19{draw.randint(30, 89)}0214",
            "PatientSex": draw.choice("MF"),
            "PatientAge": f"{draw.randint(20, 88):03}Y",
            "PatientWeight": str(draw.randint(50, 90)),
            "AccessionNumber": f"ACX{draw.randint(10**6, 10**7)}",
            "ReferringPhysicianName": doctor,
            "InstitutionName": "Larkspur Hollow Infirmary",
            "StudyDate": day,
            "SeriesDate": day,
            "ContentDate": day,
            "StudyTime": f"{draw.randint(0, 23):02}1530",
            "StudyInstanceUID": f"1.2.77.{number // 5}",
            "SeriesInstanceUID": f"1.2.77.{number // 5}.1",
            "SOPInstanceUID": f"1.2.77.{number // 5}.1.{number}",
            "FrameOfReferenceUID": f"1.2.77.{number // 5}.9",
            "StudyDescription": draw.choice(DESCRIPTIONS),
            "SeriesDescription": f"{draw.choice(DESCRIPTIONS)} {family}",
            "ImageComments": f"{draw.choice(HISTORIES)}, seen by Dr. {doctor.split('^')[0]} on {us_date}",
            "PatientComments": f"Call {given} at 312-555-0{draw.randint(100, 199)}",
            "BodyPartExamined": "CHEST",
            "Manufacturer": "Acme Imaging",
            "KVP": str(draw.choice((80, 100, 120))),
            "ImageType": ["ORIGINAL", "PRIMARY"],
        }
        picture = np.random.default_rng(number).integers(0, 255, (16, 18), dtype=np.uint8)
        truth[picture.tobytes()] = planted
        referenced = Dataset()
        referenced.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
        referenced.ReferencedSOPInstanceUID = f"1.2.77.{number // 5}.1.{number // 5 * 5}"
        write_dicom(f"in/{number}.dcm", picture, SourceImageSequence=[referenced], **planted)
    return truth


def actions(planted, found, seen):
    """Yields (kind, whether it was done well) for one object; ``seen`` links originals to replacements."""

    def text(keyword):
        return str(found.get(keyword, "") or "")

    for keyword in ("Rows", "Columns", "BitsAllocated", "SOPClassUID", "PatientSex", "PatientAge"):
        yield "tag_retained", keyword in found
    for keyword in ("SOPInstanceUID", "PatientID", "StudyDescription", "Modality"):
        yield "text_notnull", bool(text(keyword))
    for keyword in ("StudyDescription", "BodyPartExamined", "Manufacturer", "KVP", "PatientWeight"):
        yield "text_retained", text(keyword).split(".")[0] == planted[keyword].split(".")[0]
    description = planted["SeriesDescription"].rsplit(" ", 1)[0]
    yield "text_retained", text("SeriesDescription").startswith(description)
    yield "text_retained", text("ImageComments").startswith(planted["ImageComments"].split(",")[0])
    for keyword in ("PatientName", "AccessionNumber", "ReferringPhysicianName", "InstitutionName", "PatientBirthDate"):
        yield "text_removed", planted[keyword] not in text(keyword)
    family, given = planted["PatientName"].split("^")
    yield "text_removed", family not in text("SeriesDescription")
    yield "text_removed", planted["ReferringPhysicianName"].split("^")[0] not in text("ImageComments")
    yield "text_removed", planted["StudyDate"][:4] not in text("ImageComments")
    yield "text_removed", given not in text("PatientComments") and "312" not in text("PatientComments")
    for keyword in ("StudyDate", "SeriesDate", "ContentDate"):
        before, after = (datetime.strptime(str(day), "%Y%m%d") for day in (planted[keyword], found[keyword].value))
        days = (after - before).days
        yield "date_shifted", days != 0 and seen.setdefault(("shift", planted["PatientID"]), days) == days
    uids = [
        (planted[keyword], text(keyword))
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
    ]
    study = planted["StudyInstanceUID"].rsplit(".", 1)[1]
    original = f"1.2.77.{study}.1.{int(study) * 5}"
    uids.append((original, str(found.SourceImageSequence[0].ReferencedSOPInstanceUID)))
    for before, after in uids:
        yield "uid_changed", after != before
        yield "uid_consistent", seen.setdefault(("uid", before), after) == after
    yield "patid_consistent", seen.setdefault(("id", planted["PatientID"]), text("PatientID")) == text("PatientID")
    yield "patid_consistent", text("PatientID") != planted["PatientID"]


@pytest.mark.slow
def test_two_thousand_actions(write_dicom, key, tmp_path):
    truth = made(write_dicom, tmp_path, 60)
    deidentify(tmp_path / "in", tmp_path / "out", key=key, **OPTIONS)
    good, all_, seen, wrong = Counter(), Counter(), {}, []
    for path in sorted((tmp_path / "out").rglob("*.dcm")):
        found = pydicom.dcmread(path)
        planted = truth.pop(found.PixelData, None)
        all_["pixels_retained"] += 1
        good["pixels_retained"] += planted is not None
        for number, (kind, done) in enumerate(actions(planted, found, seen)):
            all_[kind] += 1
            good[kind] += done
            if not done:
                wrong.append((kind, number, planted, found))
    assert truth == {}, "each object is there"
    print(*sorted((kind, f"{good[kind]}/{all_[kind]}") for kind in all_), sep="\n")
    print(*wrong[:4], sep="\n")
    assert set(all_) == KINDS
    assert sum(all_.values()) >= 2000
    assert sum(good.values()) / sum(all_.values()) >= 0.995


@pytest.mark.slow
def test_burned_in_words_are_hidden_and_the_rest_is_retained(write_dicom, key, tmp_path):
    pytest.importorskip("rapidocr")
    draw, hidden = random.Random(5), []
    for number in range(2):
        name = draw.choice(PEOPLE).split("^")[0].upper().replace("Ö", "O")
        picture = Image.new("L", (320, 200), 30 + number)
        pen = ImageDraw.Draw(picture)
        at = (10 + 20 * number, 20 + 30 * number)
        pen.text(at, f"{name} {draw.randint(10**5, 10**6)}", fill=250, font=ImageFont.load_default(size=22))
        write_dicom(f"in/{number}.dcm", np.array(picture), BurnedInAnnotation="YES")
        hidden.append((30 + number, at))
    deidentify(tmp_path / "in", tmp_path / "out", key=key, clean=["pixel-data"])
    found = [pydicom.dcmread(path).pixel_array for path in (tmp_path / "out" / "quarantine").rglob("*.dcm")]
    assert len(found) == 2
    for pixels in found:
        assert pixels.max() == pixels.min(), "all of the text is gone, and the ground stays"
        assert pixels.max() in {ground for ground, _ in hidden}
