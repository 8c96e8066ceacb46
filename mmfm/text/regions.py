"""Which regions of the body have a vocabulary, and the observations of each."""

CHEST_RADIOGRAPH = "chest_radiograph"

_OBSERVATIONS = {
    "chest_ct": (
        "medical_material", "arterial_calcification", "cardiomegaly", "pericardial_effusion", "coronary_calcification",
        "hiatal_hernia", "lymphadenopathy", "emphysema", "atelectasis", "nodule", "lung_opacity", "fibrosis",
        "pleural_effusion", "mosaic_attenuation", "peribronchial_thickening", "consolidation", "bronchiectasis",
        "interlobular_septal_thickening", "pneumothorax", "fracture", "mass",
    ),
    "abdomen": ("liver_lesion", "kidney_lesion", "pancreas_lesion", "free_fluid"),
    "head": ("brain_mass", "infarct", "intracranial_hemorrhage", "hydrocephalus"),
}  # fmt: skip

REGIONS = (CHEST_RADIOGRAPH, *_OBSERVATIONS)


def observations(region: str) -> tuple[str, ...]:
    """Returns the observations of a region, in the order of its vocabulary."""
    from mmfm.text.labeller import OBSERVATIONS

    return OBSERVATIONS if region == CHEST_RADIOGRAPH else _OBSERVATIONS[region]
