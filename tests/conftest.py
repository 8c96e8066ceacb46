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
