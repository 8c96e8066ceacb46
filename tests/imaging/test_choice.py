import re
from dataclasses import replace

import numpy as np
import pytest

from mmfm.errors import ConfigError, ScopeError
from mmfm.imaging import choose_series, plane_of, sequence_of
from mmfm.study import Acquisition, Geometry, Instance, PixelHeader, Series, Study

AXIAL, CORONAL, SAGITTAL = (1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)
MR_CHANNELS = ("T1", "T2", "FLAIR", "DWI")


def series(
    uid="1",
    modality="CT",
    slices=40,
    step=2.0,
    orientation=AXIAL,
    kind=("ORIGINAL", "PRIMARY", "AXIAL"),
    description=None,
    rescale="HU",
    body_part=None,
    **acquisition,
):
    normal = np.cross(orientation[:3], orientation[3:])
    instances = tuple(
        Instance(
            sop_instance_uid=f"{uid}.{n}",
            pixels=PixelHeader(rows=8, columns=8, rescale_type=rescale if modality == "CT" else None),
            geometry=Geometry(
                position=tuple(map(float, normal * n * step)), orientation=orientation, pixel_spacing=(1.0, 1.0)
            ),
            image_type=kind,
        )
        for n in range(slices)
    )
    return Series(
        series_uid=uid,
        instances=instances,
        modality=modality,
        description=description,
        body_part=body_part,
        acquisition=Acquisition(**acquisition),
    )


SCREENSHOT = Instance(
    sop_instance_uid="1",
    pixels=PixelHeader(rows=8, columns=8, rescale_type="HU"),
    image_type=("DERIVED", "SECONDARY"),
)


def mr(uid="1", description=None, **keys):
    return series(
        uid,
        "MR",
        **({"step": 5.0, "slices": 30, "kind": ("ORIGINAL", "PRIMARY", "M", "ND")} | keys),
        description=description,
    )


def study(*members):
    return Study(study_uid="9", series=tuple(replace(one, series_uid=f"1.{n}") for n, one in enumerate(members, 1)))


def taken(members, channels=("CT",), **keys):
    choice = choose_series(study(*members), channels=channels, **keys)
    assert len(choice.reasons) == len(members)
    return {channel: int(one.series_uid.removeprefix("1.")) for channel, one in choice.chosen.items()}, choice.reasons


# Descriptions as scanners of five makers and their users write them.
@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("t1_mprage_sag_p2_iso", "T1"),
        ("sT1W_3D_TFE", "T1"),
        ("Ax T1 FSE", "T1"),
        ("SAG 3D BRAVO", "T1"),
        ("Sag T1 FLAIR", "T1"),
        ("t1_tirm_tra_dark-fluid", "T1"),
        ("t1_mprage_tra_KM", "T1C"),
        ("AX T1 +C", "T1C"),
        ("Ax T1 POST GAD", "T1C"),
        ("T1 post", "T1C"),
        ("T1 pre contrast", "T1"),
        ("t1_se_tra nativ", "T1"),
        ("t2_tse_tra_512", "T2"),
        ("T2W_TSE", "T2"),
        ("AxT2 PROPELLER", "T2"),
        ("t2_space_sag", "T2"),
        ("t2_tirm_tra_dark-fluid_fs", "FLAIR"),
        ("T2_FLAIR_longTR", "FLAIR"),
        ("Ax T2 FLAIR", "FLAIR"),
        ("3D_Brain_VIEW_FLAIR", "FLAIR"),
        ("t2_space_dark-fluid_sag_p2_iso", "FLAIR"),
        ("t2_tirm_cor", None),
        ("ep2d_diff_3scan_trace_p2_TRACEW", "DWI"),
        ("ep2d_diff_3scan_trace_p2_ADC", "ADC"),
        ("DWI b1000", "DWI"),
        ("eDWI", "DWI"),
        ("dADC", "ADC"),
        ("Apparent Diffusion Coefficient (mm2/s)", "ADC"),
        ("Exponential Apparent Diffusion Coefficient", None),
        ("eADC", None),
        ("ep2d_diff_mddw_20_FA", None),
        ("SWI_Images", None),
        ("Ax SWAN", None),
        ("Pha_Images", None),
        ("Ax T2* GRE", None),
        ("t2_fl2d_tra_hemo", None),
        ("T2 star", None),
        ("T2W_FFE", None),
        ("TOF_3D_multi-slab", None),
        ("3D TOF MRA", None),
        ("localizer", None),
        ("AAHead_Scout", None),
        ("3-plane loc", None),
        ("Cor STIR", None),
        ("pd_tse_tra", None),
        ("ciss3d_tra", None),
        ("ep2d_perf", None),
        ("pCASL", None),
        ("relCBF", None),
        ("T1 map", None),
        ("MIP sag", None),
        ("sub-01_ce-gad_T1w", "T1C"),
        ("sub-01_dir-AP_dwi", "DWI"),
        ("DTI_64_dir", None),
        ("AX DWI 3 DIR", "DWI"),
        ("Ax DWI ASSET", "DWI"),
        ("ASSET cal", None),
        ("T1 without contrast", "T1"),
        ("AX T1 POST WO FS", "T1C"),
        ("T1 MPRAGE post KM pre-OP", "T1C"),
        ("Edwin Tracey", None),
        ("", None),
    ],
)
def test_sequences_by_words(description, expected):
    assert sequence_of(mr(description=description)) == expected


@pytest.mark.parametrize(
    ("description", "acquisition", "expected"),
    [
        (None, {"scanning_sequence": ("SE",), "repetition_time": 500.0, "echo_time": 12.0}, "T1"),
        (None, {"scanning_sequence": ("SE",), "repetition_time": 4200.0, "echo_time": 98.0}, "T2"),
        (None, {"scanning_sequence": ("SE", "IR"), "repetition_time": 9000.0, "echo_time": 120.0,
                "inversion_time": 2500.0}, "FLAIR"),
        (None, {"scanning_sequence": ("GR", "IR"), "repetition_time": 1900.0, "echo_time": 2.5,
                "inversion_time": 900.0}, "T1"),
        (None, {"scanning_sequence": ("SE",), "repetition_time": 4200.0, "echo_time": 15.0}, None),
        (None, {"scanning_sequence": ("GR",), "repetition_time": 25.0, "echo_time": 5.0}, None),
        (None, {"scanning_sequence": ("GR",), "repetition_time": 600.0, "echo_time": 20.0}, None),
        (None, {"scanning_sequence": ("EP",), "repetition_time": 4000.0, "echo_time": 90.0}, None),
        (None, {"scanning_sequence": ("EP", "SE"), "b_value": 1000.0}, "DWI"),
        ("DWI", {"scanning_sequence": ("EP", "SE"), "b_value": 0.0}, None),
        ("ep2d_diff", {"b_value": 50.0}, None),
        ("t2_tse", {"scanning_sequence": ("SE",), "repetition_time": 4000.0, "echo_time": 90.0, "b_value": 0.0}, "T2"),
        ("tirm", {"scanning_sequence": ("IR", "SE"), "repetition_time": 8000.0, "echo_time": 100.0,
                  "inversion_time": 2370.0}, "FLAIR"),
        ("t2_tirm_cor", {"scanning_sequence": ("IR", "SE"), "repetition_time": 5000.0, "echo_time": 60.0,
                         "inversion_time": 180.0}, None),
        ("Sag FLAIR", {"scanning_sequence": ("SE", "IR"), "repetition_time": 2000.0, "echo_time": 12.0,
                       "inversion_time": 800.0}, "T1"),
        ("AX FLAIR", {"scanning_sequence": ("SE",), "repetition_time": 9000.0, "echo_time": 120.0}, "FLAIR"),
        ("T1 (wrong name)", {"scanning_sequence": ("SE",), "repetition_time": 5000.0, "echo_time": 100.0}, "T2"),
        ("Head", {"protocol": "T2 TSE tra"}, "T2"),
        ("AX T1", {"contrast": True}, "T1C"),
        ("AX T1 PRE", {"contrast": True}, "T1"),
        ("AX T1 pre contrast", {"contrast": True}, "T1"),
        ("AX T1 W/WO", {"contrast": True}, "T1C"),
        ("AX T1 W/WO", {}, "T1"),
        ("AX T1 POST WO FS", {"contrast": False}, "T1"),
        ("AX T1", {"component": "PHASE"}, None),
        ("AX T1", {"component": "MIXED"}, None),
        ("AX T1", {"component": "MAGNITUDE"}, "T1"),
    ],
)  # fmt: skip
def test_timing_outdoes_words_where_it_leaves_no_doubt(description, acquisition, expected):
    assert sequence_of(mr(description=description, **acquisition)) == expected


def test_other_modalities_have_no_sequence():
    assert sequence_of(series()) == "CT"
    assert sequence_of(series(modality="PT")) is None
    assert sequence_of(mr(description="T1", kind=("ORIGINAL", "PRIMARY", "LOCALIZER"))) is None


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (AXIAL, "axial"),
        (CORONAL, "coronal"),
        (SAGITTAL, "sagittal"),
        ((1, 0, 0, 0, np.cos(0.35), np.sin(0.35)), "axial"),
        ((1, 0, 0, 0, np.cos(0.75), np.sin(0.75)), "oblique"),
        (None, None),
    ],
)
def test_planes(orientation, expected):
    instance = Instance(
        sop_instance_uid="1",
        pixels=PixelHeader(rows=2, columns=2),
        geometry=Geometry(orientation=orientation and tuple(map(float, orientation))),
    )
    assert plane_of(Series(series_uid="1", instances=(instance,))) == expected


def test_the_best_ct_of_a_chest():
    chosen, reasons = taken(
        [
            series(slices=2, kind=("ORIGINAL", "PRIMARY", "LOCALIZER"), orientation=CORONAL),
            series(slices=60, step=5.0, kernel="B30f"),
            series(slices=300, step=1.0, kernel="B31f"),
            series(slices=300, step=1.0, kernel="B70f"),
            series(slices=80, step=3.0, kernel="B31f", orientation=CORONAL, kind=("DERIVED", "PRIMARY", "MPR")),
            series(slices=90, step=1.0, kernel="B31f"),
            replace(series(), instances=(SCREENSHOT,)),
            series(slices=1, modality="OT", description="Doe^Jane"),
            series(slices=30, step=10.0, kernel="B31f", kind=("DERIVED", "PRIMARY", "MIP")),
            series(slices=4, kernel="B31f"),
            series(slices=300, step=1.0, rescale=None),
        ]
    )
    assert chosen == {"CT": 3}
    assert reasons == (
        "series 1: coronal CT, 2 mm, 2 slices: left out, a localiser",
        "series 2: axial CT, 5 mm, soft kernel, 60 slices: left out, thicker slices",
        "series 3: axial CT, 1 mm, soft kernel, 300 slices: taken as CT",
        "series 4: axial CT, 1 mm, sharp kernel, 300 slices: left out, sharp kernel",
        "series 5: coronal CT, 3 mm, soft kernel, 80 slices: left out, derived from another, such as a reformat",
        "series 6: axial CT, 1 mm, soft kernel, 90 slices: left out, covers less of the body",
        "series 7: CT, 1 slice: left out, a screenshot",
        "series 8: axial OT, 1 slice: left out, another modality",
        "series 9: axial CT, 10 mm, soft kernel, 30 slices: left out, a projection or a map, no slices as they were "
        "acquired",
        "series 10: axial CT, 2 mm, soft kernel, 4 slices: left out, fewer than 5 slices",
        "series 11: axial CT, 1 mm, 300 slices: left out, not in Hounsfield units",
    )


@pytest.mark.parametrize(
    ("kernel", "description", "sharp"),
    [
        ("B30f", None, False), ("B70s", None, True), ("Br40d\\3", None, False), ("Bl57f\\2", None, True),
        ("I70f\\3", None, True), ("STANDARD", None, False), ("LUNG", None, True), ("BONEPLUS", None, True),
        ("FC08", None, False), ("FC51", None, True), ("B", None, False), ("YC", None, True), ("L", None, True),
        (None, "Lunge 1.0", True), (None, "Mediastinum 3.0", False),
    ],
)  # fmt: skip
def test_kernels(kernel, description, sharp):
    chosen, _ = taken([series(kernel=kernel, description=description), series(kernel="FC50" if not sharp else "FC10")])
    assert chosen == {"CT": 2 if sharp else 1}


def test_a_low_dose_ct_is_no_dose_report():
    low, report = series(description="CHEST LOW DOSE", step=1.0, slices=300), series(description="Dose Report")
    assert taken([series(step=5.0, slices=60), low])[0] == {"CT": 2}
    assert "a projection or a map" in taken([low, report])[1][1]


@pytest.mark.parametrize(("body_part", "expected"), [("HEAD", 1), ("ABDOMEN", 2), (None, 2)])
def test_phase_of_contrast(body_part, expected):
    chosen, reasons = taken([series(body_part=body_part), series(body_part=body_part, contrast=True)])
    assert chosen == {"CT": expected}
    assert "another phase of contrast" in " ".join(reasons) and "with contrast" in reasons[1]


def test_the_channels_of_a_head():
    chosen, reasons = taken(
        [
            mr(slices=3, kind=("ORIGINAL", "PRIMARY", "M", "LOCALIZER"), description="localizer"),
            mr(description="t1_se_tra"),
            mr(description="t1_mprage_sag", step=1.0, slices=176, orientation=SAGITTAL),
            mr(description="t1_mprage_sag KM", step=1.0, slices=176, orientation=SAGITTAL),
            mr(description="t2_tse_cor", orientation=CORONAL),
            mr(description="t2_tse_tra"),
            mr(description="t2_tirm_dark-fluid"),
            mr(description="ep2d_diff", b_value=0.0),
            mr(description="ep2d_diff", b_value=500.0),
            mr(description="ep2d_diff", b_value=1000.0),
            mr(description="ep2d_diff_ADC", kind=("DERIVED", "PRIMARY", "DIFFUSION", "ADC")),
            mr(description="t2_tirm_dark-fluid", component="PHASE"),
        ],
        MR_CHANNELS,
    )
    assert chosen == {"T1": 3, "T2": 6, "FLAIR": 7, "DWI": 10}
    assert [line.partition(": left out, ")[2] for line in reasons] == [
        "a localiser", "thicker slices", "", "with contrast", "another plane", "", "",
        "its sequence is another, or cannot be told", "another b-value", "", "not wanted",
        "a phase image or a mix of several",
    ]  # fmt: skip
    assert reasons[9] == "series 10: axial MR DWI, b 1000, 5 mm, 30 slices: taken as DWI"


def test_lines_hold_no_free_text():
    secret = "Doe^Jane 1.2.840.99"
    members = [
        series(description=secret, kernel=secret, protocol=secret, body_part=secret),
        mr(description=secret, protocol=secret),
        series(modality="DOE^JANE", slices=1),
    ]
    _, reasons = taken(members)
    with pytest.raises(ScopeError) as error:
        choose_series(study(*members), channels=MR_CHANNELS)
    assert not re.search(r"doe|jane|840|1\.1|1\.2", (" ".join(reasons) + str(error.value)).lower())
    assert "expected a series that fits T1 or T2 or FLAIR or DWI; found series 1: axial CT" in str(error.value)


def test_several_slices_at_one_place_are_never_taken():
    good, other = mr(description="t2_tse"), mr(description="t2_tse", slices=60)
    twice = replace(other, instances=other.instances + tuple(
        replace(i, sop_instance_uid=f"{i.sop_instance_uid}.1") for i in other.instances
    ))  # fmt: skip
    chosen, reasons = taken([twice, good], ("T2",))
    assert chosen == {"T2": 2}
    assert reasons[0].endswith("left out, several slices at one place: not one volume")


class TestNamedByTheUser:
    members = (series(step=1.0, slices=80), series(orientation=CORONAL, kind=("DERIVED", "PRIMARY", "MPR")),
               series(slices=3, kind=("ORIGINAL", "PRIMARY", "LOCALIZER")))  # fmt: skip

    @pytest.mark.parametrize("name", ["1.2", "#2", "2"])
    def test_is_taken_whatever_the_rules_prefer(self, name):
        chosen, reasons = taken(self.members, only=(name,))
        assert chosen == {"CT": 2}
        assert reasons[0].endswith("left out, another was named") and reasons[1].endswith("taken as CT")

    @pytest.mark.parametrize(
        ("only", "words"),
        [
            (("1.9",), "found another"),
            (("#4",), "#1 to #3"),
            (("#0",), "#1 to #3"),
            (("#3",), "a localiser"),
            (("#1", "#2"), "two for one"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, only, words):
        with pytest.raises(ConfigError, match=words) as error:
            choose_series(study(*self.members), channels=("CT",), only=only)
        assert str(error.value).startswith("--series: expected ")

    def test_contrast_may_stand_for_t1_and_phase_never(self):
        members = (mr(description="T1"), mr(description="T1 +C"), mr(description="T2"), mr(component="PHASE"))
        assert taken(members, MR_CHANNELS, only=("#2", "#3"))[0] == {"T1": 2, "T2": 3}
        with pytest.raises(ConfigError, match="phase"):
            choose_series(study(*members), channels=MR_CHANNELS, only=("#4",))
        with pytest.raises(ConfigError, match="two for one"):
            choose_series(study(*members), channels=MR_CHANNELS, only=("#1", "#2"))

    def test_of_a_sequence_that_cannot_be_told(self):
        members = (mr(description="head"), mr(description="T2"))
        assert taken(members, ("T1",), only=("#1",))[0] == {"T1": 1}
        with pytest.raises(ConfigError, match="one of T1, T2, FLAIR, DWI; found series 1: axial MR, 5 mm"):
            choose_series(study(*members), channels=MR_CHANNELS, only=("#1",))

    def test_uid_of_a_series_that_was_split_stands_for_its_best_part(self):
        parts = tuple(replace(one, series_uid=f"1.7#{n}") for n, one in enumerate(self.members, 1))
        choice = choose_series(Study(study_uid="9", series=parts), channels=("CT",), only=("1.7",))
        assert choice.chosen["CT"].series_uid == "1.7#1"
