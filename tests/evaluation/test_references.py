"""The region of a reference: written where it is another than the radiograph's, and decides what is scored."""

import pytest

from mmfm.errors import ManifestError
from mmfm.evaluation.clinical_errors import clinical_errors
from mmfm.evaluation.per_study import Compared
from mmfm.evaluation.predictions import Prediction
from mmfm.evaluation.references import Reference, read_references, write_references
from mmfm.report import Sections

LIVER = Sections(findings="There is a 12 mm lesion in the right hepatic lobe.")


def test_a_region_is_kept_in_files(tmp_path):
    references = tuple(
        Reference(study_uid=region, report=LIVER, region=region) for region in ("chest_radiograph", "abdomen", "other")
    )
    write_references(references, tmp_path / "references.jsonl")
    assert [one.region for one in read_references(tmp_path / "references.jsonl")] == [one.region for one in references]
    assert "region" not in (tmp_path / "references.jsonl").read_text().splitlines()[0]
    (tmp_path / "wrong.jsonl").write_text('{"study_uid": "a", "findings": "", "impression": "", "region": "knee"}\n')
    with pytest.raises(ManifestError, match="region: expected one of chest_radiograph"):
        read_references(tmp_path / "wrong.jsonl")


def test_errors_are_read_with_the_words_of_the_region():
    found = {
        region: clinical_errors(Sections(), Reference(study_uid="a", report=LIVER, region=region))
        for region in ("abdomen", "other")
    }
    assert [error.observation for error in found["abdomen"]] == ["liver_lesion"]
    assert found["other"] == ()


def test_a_study_without_a_vocabulary_counts_neither_as_right_nor_as_wrong():
    references = [Reference(study_uid=region, report=LIVER, region=region) for region in ("abdomen", "other")]
    compared = Compared.of(references)
    drafts = [Prediction(study_uid=r.study_uid, findings="No liver lesion.", impression="") for r in references]
    counts = {name: n for each in compared.statistics(drafts) for name, (n, _) in each.counts().items()}
    assert counts["error_rate"] == 1
    assert counts["finding_f1_micro"] == 1
