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
