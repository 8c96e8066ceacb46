import pytest

from mmfm.models.checkpoint import Facts, Sensitivity
from mmfm.study import Instance, Patient, PixelHeader, Series, Study


@pytest.fixture
def make_study():
    """Returns a study with one series for each dict of Series fields, all of equal instances; headers only."""

    def make(*series, age=50.0, description=None, frames=1, **instance):
        made = tuple(
            Series(
                series_uid=f"1.2.{i}",
                instances=(
                    Instance(
                        sop_instance_uid=f"1.2.{i}.1",
                        pixels=PixelHeader(rows=8, columns=8, frames=frames),
                        **instance,
                    ),
                ),
                **fields,
            )
            for i, fields in enumerate(series)
        )
        return Study(study_uid="1.2", series=made, patient=Patient(age_years=age), description=description)

    return make


@pytest.fixture
def facts():
    """Cardiomegaly is measured well; effusion on too few studies; edema below the floor; mass is never stated."""
    return Facts(
        operating_points={"cardiomegaly": 0.5, "pleural_effusion": 0.5, "edema": 0.5, "nodule": 0.5},
        sensitivity={
            "cardiomegaly": Sensitivity(value=0.95, positives=32),
            "pleural_effusion": Sensitivity(value=1.0, positives=9),
            "edema": Sensitivity(value=0.85, positives=20),
            "mass": Sensitivity(value=0.99, positives=50),
        },
        sensitivity_floor=0.9,
    )
