"""What the tests of this folder score against."""

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def other_patients(tiny_manifest: Path) -> Path:
    """The studies of ``tiny_manifest`` as those of other patients: training studies of which every one leaks."""
    rows = [json.loads(line) for line in tiny_manifest.read_text().splitlines()]
    for row in rows:
        row["study_uid"], row["patient_id"] = f"{row['study_uid']}.9", f"other-{row['patient_id']}"
    manifest = tiny_manifest.with_name("other_patients.jsonl")
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest
