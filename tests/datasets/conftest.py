from __future__ import annotations

import csv
import importlib.util
import io
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def load(root):
    """Returns the prepare.py of a source as a module; datasets/ is no package."""

    def load(name):
        path = root / "datasets" / name / "prepare.py"
        spec = importlib.util.spec_from_file_location(f"prepare_{name}", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # a dataclass looks its module up there
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def jpeg():
    """Returns the bytes of a small JPEG, another one for each number."""

    def jpeg(number):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert("RGB").save(buffer, "JPEG")
        return buffer.getvalue()

    return jpeg


@pytest.fixture(scope="session")
def write_tar():
    def write_tar(path, members):
        with tarfile.open(path, "w") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))

    return write_tar


@pytest.fixture(scope="session")
def write_csv():
    def write_csv(path, rows, columns):
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, columns, restval="")
            table.writeheader()
            table.writerows(rows)

    return write_csv
