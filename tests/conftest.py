"""What every test relies on: torchvision beside a CPU build of torch, no network, repeatable hypothesis."""

import mmfm  # noqa: F401  installs the torchvision hook; first, before anything imports torchvision

import os  # isort: skip
from pathlib import Path  # isort: skip

os.environ["HF_HUB_OFFLINE"] = "1"  # a missed file would otherwise cost about 23 s of retries
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import pytest
from hypothesis import settings

settings.register_profile("mmfm", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("mmfm")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images and reports kept beside the checkout; they are never part of it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no shared/data beside the checkout")
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint folder with random weights that ends its text at once and always states an effusion.

    The first number of every token's embedding is large, and largest for the end token: since the output layer is the
    same table, the end token wins wherever the text stands. The draft is then what the finding heads decide.
    """
    import torch

    from mmfm.models import VLM, Connector, Encoder2D, LanguageModelConfig, Processor, save_checkpoint
    from mmfm.models.checkpoint import Facts, Sensitivity
    from mmfm.text import OBSERVATIONS

    torch.manual_seed(0)
    observations = (*OBSERVATIONS, "normal")
    config = VLM.Config(
        encoder=Encoder2D.Config(name="test_efficientnet", image_size=64, weights=None),
        connector=Connector.Config(kind="mlp", num_tokens=4),
        language=LanguageModelConfig(hidden_size=32, num_layers=2, num_heads=2, vocab_size=512, max_length=512),
    )
    tokenizer = config.language.build_tokenizer(["Findings: There is a left pleural effusion.\nImpression: Effusion."])
    processor = Processor(Processor.Config(image_size=64, tokens_per_image=4, observations=observations), tokenizer)
    model = config.build(processor)
    with torch.no_grad():
        table = model.language.get_input_embeddings().weight
        table[:, 0] = 5
        table[tokenizer.eos_token_id, 0] = 10
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    save_checkpoint(
        folder,
        model=model,
        config=config,
        processor=processor,
        facts=Facts(
            operating_points={"pleural_effusion": 0.0, "cardiomegaly": 1.0},
            sensitivity={"cardiomegaly": Sensitivity(value=0.95, positives=32)},
        ),
        provenance={"made_by": "tests/conftest.py"},
        card="A checkpoint for tests.\n",
        license_text="Apache-2.0\n",
    )
    return folder


@pytest.fixture(scope="session")
def tiny_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of eight drawn studies of 64 pixels, all in split ``train``: the same four findings, twice."""
    from mmfm.data.manifest import ManifestRow, ManifestSeries, sha256, write_manifest
    from mmfm.data.synthetic import draw_study, write_dicom

    folder = tmp_path_factory.mktemp("tiny_studies")
    rows = []
    wanted = (("pleural_effusion",), ("cardiomegaly",), ("pneumothorax",), ()) * 2
    for seed, findings in enumerate(wanted):
        study = draw_study(seed, size=64, findings=findings)
        paths = write_dicom(study, folder / str(seed))
        rows.append(
            ManifestRow(
                study_uid=study.study_uid,
                patient_id=str(study.patient.patient_id),
                source="synthetic",
                split="train",
                series=tuple(
                    ManifestSeries(
                        series_uid=view.series_uid, path=path.relative_to(folder).as_posix(), sha256=sha256(path)
                    )
                    for path, view in zip(paths, study.views, strict=True)
                ),
                report=study.report,
                labels={**study.labels, "normal": "absent" if findings else "present"},
            )
        )
    write_manifest(rows, folder / "manifest.jsonl")
    return folder / "manifest.jsonl"


@pytest.fixture(scope="session")
def tiny_volume_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``tiny_checkpoint``, for CT and MR: states an effusion and at least one nodule of every CT of the chest.

    Of every CT of the abdomen it states free fluid, of the head hydrocephalus; every picture is one of the head.
    """
    import torch

    from mmfm.models import VLM, Connector, Encoder2D, LanguageModelConfig, Processor, save_checkpoint
    from mmfm.models.checkpoint import Facts, Scope, Sensitivity, VolumeFacts
    from mmfm.models.encoder3d import Encoder3D
    from mmfm.models.recipes import Recipe
    from mmfm.report import Place, Side

    torch.manual_seed(0)
    config = VLM.Config(
        encoder=Encoder2D.Config(name="test_efficientnet", image_size=64, weights=None),
        connector=Connector.Config(kind="mlp", num_tokens=4),
        volume_encoder=Encoder3D.Config(name="DynUNet", width=8),
        tokens_per_slab=8,
        language=LanguageModelConfig(hidden_size=32, num_layers=2, num_heads=2, vocab_size=512, max_length=512),
    )
    tokenizer = config.language.build_tokenizer(["Findings: An 8 mm lung nodule in the left upper lobe.\nImpression:"])
    windows, sequences = ("lung", "mediastinum", "bone", "liver"), ("T1", "T2", "FLAIR", "DWI")
    grid = {"spacing_mm": (4.0, 4.0, 4.0), "shape": (32, 32, 32), "smoothing": 1 / 6}
    processor = Processor(
        Processor.Config(
            image_size=64,
            tokens_per_image=4,
            tokens_per_slab=8,
            recipes=(
                Recipe(region="chest_ct", modality="CT", channels=windows, **grid),
                Recipe(region="abdomen", modality="CT", channels=windows, **grid),
                Recipe(region="head", modality="MR", channels=sequences, **grid),
            ),
            observations=("pleural_effusion", "cardiomegaly", "nodule", "free_fluid", "hydrocephalus", "normal"),
            codes=("modality/CT", "modality/MR", "body_part/Head"),
            lesions=("nodule",),
            places=(Place(laterality=Side.LEFT, location="upper lobe", observations=("nodule",)),),
        ),
        tokenizer,
    )
    model = config.build(processor)
    with torch.no_grad():
        table = model.language.get_input_embeddings().weight
        table[:, 0] = 5
        table[tokenizer.eos_token_id, 0] = 10
        model.volume_heads.dense.bias += 4.0  # untaught heads have no peak that is looked at
    folder = tmp_path_factory.mktemp("volume_checkpoints") / "tiny-volume"
    save_checkpoint(
        folder,
        model=model,
        config=config,
        processor=processor,
        facts=Facts(
            scope=Scope(modalities=("CT", "MR"), body_parts=("CHEST", "ABDOMEN", "HEAD"), views=()),
            operating_points={"hydrocephalus": 0.0},
            sensitivity={},
            volumes=VolumeFacts(
                operating_points=dict.fromkeys(("pleural_effusion", "free_fluid", "hydrocephalus"), 0.0)
                | {"cardiomegaly": 1.0},
                lesion_points={"nodule": 0.0},
                sensitivity={"cardiomegaly": Sensitivity(value=0.95, positives=32)},
            ),
        ),
        provenance={"made_by": "tests/conftest.py"},
        card="A checkpoint for tests.\n",
        license_text="Apache-2.0\n",
    )
    return folder


@pytest.fixture(scope="session")
def write_volume():
    """Returns a function that writes an ellipsoid of 120 mm as a CT or MR study of slices, and gives its folder."""
    import numpy as np

    from mmfm.data.synthetic_volumes.drawing import DrawnVolume
    from mmfm.data.synthetic_volumes.writing import Writing, write_dicom
    from mmfm.study import Patient

    def write(
        folder: Path, region: str = "chest_ct", *, seed: int = 1, patient_id: str = "p1", age: float = 60
    ) -> Path:
        s, r, c = np.mgrid[-1:1:24j, -1:1:24j, -1:1:24j]
        body = (s**2 / 0.98 + r**2 / 0.8 + c**2 / 0.9) < 1
        noise = np.random.default_rng(seed).normal(0, 5, body.shape)
        names = ("T1", "T2", "FLAIR", "DWI") if region == "head" else ("CT",)
        inside, outside = (300.0, 0.0) if region == "head" else (40.0, -1000.0)
        image = np.float32(np.maximum(np.where(body, inside + noise, outside), outside))
        affine = np.zeros((4, 4))
        affine[[2, 1, 0], [0, 1, 2]], affine[3, 3], affine[:3, 3] = 5.0, 1.0, -60.0
        drawn = DrawnVolume(
            region=region,
            seed=seed,
            patient=Patient(patient_id=patient_id, age_years=age),
            images=dict.fromkeys(names, image),
            affine=affine,
            segmentation=np.zeros(body.shape, np.uint8),
            segments=(),
            findings=(),
            labels={},
        )
        write_dicom(drawn, folder, writing=Writing(localizer=True))
        return folder

    return write
