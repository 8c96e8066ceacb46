"""How a series was made, out of headers: the quick scan and pydicom's parser agree, and a choice rests on it."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mmfm.errors import ScopeError
from mmfm.imaging import choose_series
from mmfm.io import read, read_studies
from mmfm.study import Acquisition

PICTURE = np.arange(480, dtype=np.uint16).reshape(24, 20)
AXIAL = [1, 0, 0, 0, 1, 0]
STATED = {
    "Modality": "MR",
    "ContrastBolusAgent": "Gadolinium",
    "ConvolutionKernel": ["Br40d", "3"],
    "RepetitionTime": "4000.5",
    "EchoTime": 98,
    "InversionTime": 2500,
    "DiffusionBValue": 1000.0,
    "ScanningSequence": ["SE", "IR"],
    "SequenceVariant": ["SK", "SP"],
    "ComplexImageComponent": "MAGNITUDE",
    "ProtocolName": "t2_tirm_tra",
    "SeriesNumber": 7,
}


def made(path) -> Acquisition:
    (study,) = read_studies(path)
    (series,) = study.series
    return series.acquisition


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("scanned", [True, False])
def test_scan_and_parser_agree(write_dicom, syntax, scanned):
    path = write_dicom("a.dcm", PICTURE, syntax, **STATED)
    if not scanned:  # a sequence of undefined length is left to pydicom
        dataset = pydicom.dcmread(path)
        dataset.ReferencedStudySequence = [pydicom.Dataset()]
        dataset["ReferencedStudySequence"].is_undefined_length = True
        dataset.save_as(path)
    assert made(path) == Acquisition(
        contrast=True,
        kernel="Br40d\\3",
        repetition_time=4000.5,
        echo_time=98.0,
        inversion_time=2500.0,
        scanning_sequence=("SE", "IR"),
        sequence_variant=("SK", "SP"),
        b_value=1000.0,
        component="MAGNITUDE",
        protocol="t2_tirm_tra",
        number=7,
    )


def test_what_is_not_stated_is_none(write_dicom):
    assert made(write_dicom("a.dcm", PICTURE, Modality="CT")) == Acquisition()


@pytest.mark.parametrize(
    ("agent", "contrast"), [("Omnipaque", True), ("", None), ("NO", False), ("none", False), ("N", False)]
)
def test_contrast(write_dicom, agent, contrast):
    assert made(write_dicom("a.dcm", PICTURE, Modality="CT", ContrastBolusAgent=agent)).contrast is contrast


@pytest.mark.parametrize(
    ("image_type", "component"),
    [
        (["ORIGINAL", "PRIMARY", "M", "ND"], "MAGNITUDE"),
        (["ORIGINAL", "PRIMARY", "P", "ND"], "PHASE"),
        (["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"], "MAGNITUDE"),
        (["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"], "PHASE"),
        (["ORIGINAL", "PRIMARY", "R_IR", "R", "IR"], "REAL"),
        (["ORIGINAL", "PRIMARY", "OTHER"], None),
    ],
)
def test_components_by_image_type(write_dicom, image_type, component):
    assert made(write_dicom("a.dcm", PICTURE, Modality="MR", ImageType=image_type)).component == component
    (study,) = read_studies(write_dicom("b.dcm", PICTURE, Modality="CT", ImageType=image_type))
    assert study.series[0].acquisition.component is None


@pytest.fixture
def write_stack(write_dicom):
    """Returns write(folder, count, **attributes): MR slices 5 mm apart."""

    def write(folder, count=8, **attributes):
        for z in range(count):
            place = {"ImagePositionPatient": [0, 0, 5 * z], "InstanceNumber": z, "ImageOrientationPatient": AXIAL}
            name = f"s/{folder}/{z}.dcm"
            path = write_dicom(name, PICTURE, **{"Modality": "MR", "PixelSpacing": [1, 1], **place, **attributes})
        return path.parent.parent

    return write


def test_a_mix_of_magnitude_and_phase_is_split_and_phase_never_chosen(write_stack):
    for kind in "PM":
        path = write_stack(kind, ImageType=["ORIGINAL", "PRIMARY", kind], SeriesDescription="t2_tse_tra")
    (study,) = read_studies(path)
    assert sorted(one.acquisition.component for one in study.series) == ["MAGNITUDE", "PHASE"]
    choice = choose_series(study, channels=("T1", "T2"))
    assert choice.chosen["T2"].acquisition.component == "MAGNITUDE" and len(choice.chosen) == 1


def test_a_mix_that_cannot_be_split_is_not_chosen(write_stack):
    """Slices of one kind between those of the other, none at the place of another."""
    path = write_stack("M", ImageType=["ORIGINAL", "PRIMARY", "M"], SeriesDescription="t2_tse_tra")
    slices = sorted((path / "M").iterdir())
    for file in slices[::2]:
        dataset = pydicom.dcmread(file)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "P"]
        dataset.save_as(file)
    (study,) = read_studies(path)
    assert study.series[0].acquisition.component == "MIXED"
    with pytest.raises(ScopeError, match="a phase image or a mix of several"):
        choose_series(study, channels=("T2",))


def test_b_values_of_an_enhanced_object_are_those_of_its_volumes(write_enhanced):
    frames = [
        (PICTURE, {
            "PlanePositionSequence": {"ImagePositionPatient": [0, 0, 5 * z]},
            "MRDiffusionSequence": {"DiffusionBValue": b},
        })
        for b in (0.0, 1000.0) for z in range(6)
    ]  # fmt: skip
    shared = {
        "PlaneOrientationSequence": {"ImageOrientationPatient": AXIAL},
        "PixelMeasuresSequence": {"PixelSpacing": [1, 1]},
        "MREchoSequence": {"EffectiveEchoTime": 90.0},
        "MRTimingAndRelatedParametersSequence": {"RepetitionTime": 4000.0},
    }
    path = write_enhanced(
        "e.dcm", frames, shared, Modality="MR", EchoPulseSequence="SPIN", InversionRecovery="NO",
        ComplexImageComponent="MAGNITUDE", SeriesDescription="DWI",
    )  # fmt: skip
    (study,) = read_studies(path)
    assert [one.acquisition.b_value for one in study.series] == [0.0, 1000.0]
    assert {(m.echo_time, m.repetition_time, m.scanning_sequence, m.component) for m in
            (one.acquisition for one in study.series)} == {(90.0, 4000.0, ("SE",), "MAGNITUDE")}  # fmt: skip
    choice = choose_series(study, channels=("DWI",))
    assert choice.chosen["DWI"].acquisition.b_value == 1000.0
    assert choice.reasons[1] == "series 2: axial MR DWI, b 1000, 5 mm, 6 slices: taken as DWI"


def test_an_enhanced_object_of_one_frame(write_enhanced):
    shared = {"MREchoSequence": {"EffectiveEchoTime": 90.0}, "MRModifierSequence": {"InversionTimes": [2500.0]}}
    assert made(write_enhanced("e.dcm", [(PICTURE, {})], shared, Modality="MR", InversionRecovery="YES")) == (
        Acquisition(echo_time=90.0, inversion_time=2500.0, scanning_sequence=("IR",))
    )


def test_two_patients_in_one_folder_are_two_studies_or_refused(write_stack):
    path = write_stack("a", PatientID="P1")
    write_stack("b", PatientID="P2", StudyInstanceUID="1.2.9", SeriesInstanceUID="1.2.9.1")
    studies = read_studies(path)
    assert sorted(study.patient.patient_id for study in studies) == ["P1", "P2"]
    write_stack("c", PatientID="P3", SeriesInstanceUID="1.2.3.5")  # another series under the study of the first
    reading = read(path)
    assert [study.patient.patient_id for study in reading.studies] == ["P2"]
    refused = [file for file in reading.files if file.status == "refused"]
    assert len(refused) == 16
    assert all(file.reason == "expected one patient in one study, found 2 different Patient IDs" for file in refused)


def test_a_ct_without_rescale_is_not_chosen(write_stack):
    path = write_stack("a", Modality="CT")
    with pytest.raises(ScopeError, match="axial CT, 5 mm, 8 slices: left out, not in Hounsfield units"):
        choose_series(read_studies(path)[0], channels=("CT",))
    path = write_stack("a", Modality="CT", RescaleSlope=1, RescaleIntercept=-1000)
    assert choose_series(read_studies(path)[0], channels=("CT",)).chosen
