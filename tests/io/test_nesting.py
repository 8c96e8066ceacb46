"""mmfm.io.nesting: 64 sequences inside each other are read and 65 refused, however they are encoded."""

import io
import struct
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfm.errors import ReadError
from mmfm.io import read
from mmfm.io.nesting import MAX_ELEMENTS, check_nesting

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, silenced by a filter that pytest resets

SYNTAXES = {"implicit": "1.2.840.10008.1.2", "explicit": "1.2.840.10008.1.2.1", "big": "1.2.840.10008.1.2.2"}
UNDEFINED = 0xFFFFFFFF


def element(tag: int, vr: bytes, value: bytes, encoding: str, *, undefined: bool = False) -> bytes:
    order = ">" if encoding == "big" else "<"
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    length = UNDEFINED if undefined else len(value)
    if encoding == "implicit" or not vr:
        return head + struct.pack(f"{order}L", length) + value
    if vr in (b"SQ", b"UN", b"OB", b"OW"):
        return head + vr + struct.pack(f"{order}HL", 0, length) + value
    return head + vr + struct.pack(f"{order}H", length) + value


def nested(depth: int, encoding: str, *, undefined: bool, unknown: bool = False, repeat: int = 1) -> bytes:
    """``depth`` sequences in each other; of unknown VR, the innermost holds implicit data (PS3.5 6.2.2)."""
    content = element(0x00080104, b"LO", b"deepest ", encoding)
    tag = 0x00091001 if unknown else 0x0040A730
    for _ in range(depth):
        item = element(0xFFFEE000, b"", content, encoding, undefined=undefined)
        if undefined:
            item += element(0xFFFEE00D, b"", b"", encoding)
        content = element(tag, b"UN" if unknown else b"SQ", item * repeat, encoding, undefined=undefined)
        if undefined:
            content += element(0xFFFEE0DD, b"", b"", encoding)
    return content


def image(before_pixels: bytes, encoding: str) -> bytes:
    """A picture of 2 x 2 whose data set ends with ``before_pixels`` and the pixels."""
    order = ">" if encoding == "big" else "<"
    syntax = SYNTAXES[encoding].encode()
    meta = element(0x00020010, b"UI", syntax + b"\0" * (len(syntax) % 2), "explicit")
    sop = [
        (0x00080016, b"UI", b"1.2.840.10008.5.1.4.1.1.7\0"),
        (0x00080018, b"UI", b"1.2.3.41"),
        (0x0020000D, b"UI", b"1.2.3.42"),
        (0x0020000E, b"UI", b"1.2.3.43"),
    ]
    shorts = {0x00280002: 1, 0x00280010: 2, 0x00280011: 2, 0x00280100: 8, 0x00280101: 8, 0x00280102: 7, 0x00280103: 0}
    values = [(tag, b"US", struct.pack(f"{order}H", value)) for tag, value in shorts.items()]
    grey = (0x00280004, b"CS", b"MONOCHROME2 ")
    body = b"".join(element(*one, encoding) for one in sorted([*sop, *values, grey]))
    return bytes(128) + b"DICM" + meta + body + before_pixels + element(0x7FE00010, b"OW", b"\1\2\3\4", encoding)


def outcome(tmp_path, content: bytes):
    (tmp_path / "x.dcm").write_bytes(content)
    (found,) = read(tmp_path / "x.dcm").files
    return found.status, found.reason


@pytest.mark.parametrize("encoding", SYNTAXES)
@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("unknown", [False, True])
def test_64_deep_is_read_and_65_is_refused(tmp_path, encoding, undefined, unknown):
    def deep(depth):
        return image(nested(depth, encoding, undefined=undefined, unknown=unknown), encoding)

    assert outcome(tmp_path, deep(64)) == ("ok", None)
    status, reason = outcome(tmp_path, deep(65))
    assert status == "refused"
    assert reason == "expected sequences nested at most 64 deep, found sequences nested deeper than 64"
    assert outcome(tmp_path, deep(3000))[1] == reason


def test_unknown_sequences_hold_implicit_data_inside_explicit(tmp_path):
    for depth, status in ((64, "ok"), (65, "refused")):
        inner = nested(depth - 1, "implicit", undefined=True)
        item = element(0xFFFEE000, b"", inner, "explicit", undefined=True) + element(0xFFFEE00D, b"", b"", "explicit")
        outer = element(0x00091001, b"UN", item, "explicit", undefined=True) + element(0xFFFEE0DD, b"", b"", "explicit")
        assert outcome(tmp_path, image(outer, "explicit"))[0] == status


def test_the_depth_does_not_hang_on_how_deep_the_caller_stands(tmp_path):
    (tmp_path / "x.dcm").write_bytes(image(nested(64, "explicit", undefined=True), "explicit"))

    def below(frames):
        return below(frames - 1) if frames else read(tmp_path / "x.dcm").files[0].status

    assert below(sys.getrecursionlimit() // 2) == "ok"


def test_items_side_by_side_are_not_deep(tmp_path):
    wide = nested(8, "explicit", undefined=True, repeat=2)
    assert wide.count(b"\xfe\xff\x00\xe0") > 64
    assert outcome(tmp_path, image(wide, "explicit")) == ("ok", None)


def test_compressed_icons_and_values_that_look_like_items_are_not_sequences(tmp_path):
    fragments = element(0xFFFEE000, b"", b"\xff\xd8\xff\xd9", "explicit") * 200
    icon = element(0x7FE00010, b"OB", fragments, "explicit", undefined=True) + element(0xFFFEE0DD, b"", b"", "explicit")
    item = element(0xFFFEE000, b"", icon, "explicit")
    look_alike = element(0x00091002, b"OB", b"\xfe\xff\x00\xe0\xff\xff\xff\xff" * 200, "explicit")
    content = look_alike + element(0x00880200, b"SQ", item, "explicit")
    assert outcome(tmp_path, image(content, "explicit")) == ("ok", None)


def test_a_deep_file_without_pixels_and_a_deflated_one_are_refused(tmp_path):
    deep = nested(65, "explicit", undefined=False)
    whole = image(deep, "explicit")
    assert outcome(tmp_path, whole[: whole.index(b"\xe0\x7f\x10\x00")])[1].endswith("deeper than 64")
    meta = bytes(128) + b"DICM" + element(0x00020010, b"UI", b"1.2.840.10008.1.2.1.99", "explicit")
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    start = whole.index(b"\x08\x00\x16\x00")
    content = meta + packer.compress(whole[start:]) + packer.flush()
    assert outcome(tmp_path, content)[1].endswith("deeper than 64")


def test_a_header_of_too_many_elements_is_refused(tmp_path):
    many = element(0x00091002, b"LO", b"", "explicit") * (MAX_ELEMENTS + 1)
    status, reason = outcome(tmp_path, image(many, "explicit"))
    assert status == "refused"
    assert reason == "expected at most 1000000 elements before the pixels, found more"


@given(st.binary(max_size=300), st.integers(0, 60))
def test_any_bytes_are_walked_to_an_end(noise, at):
    items = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" * 65
    check_nesting(io.BytesIO(bytes(128) + b"DICM" + noise[:at] + items + noise[at:]))
    with pytest.raises(ReadError, match="deeper than 64"):
        check_nesting(io.BytesIO(nested(66, "explicit", undefined=True) + noise))
