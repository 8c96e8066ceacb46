import pytest

from mmfm.errors import CheckpointError, ConfigError, ManifestError, MmfmError, ReadError, ScopeError, ServerError


@pytest.mark.parametrize("kind", [ReadError, ManifestError, ConfigError, CheckpointError, ScopeError, ServerError])
def test_message_is_one_line_that_says_what_to_do(kind):
    error = kind("a.dcm", expected="pixels\nof an image", found="text", fix="give a DICOM file")
    assert isinstance(error, MmfmError)
    assert str(error) == "a.dcm: expected pixels of an image; found text; give a DICOM file"
    assert (error.where, error.found, error.fix) == ("a.dcm", "text", "give a DICOM file")


def test_every_part_is_required():
    with pytest.raises(TypeError):
        ReadError("a.dcm", expected="pixels", found="text")  # type: ignore[call-arg]
