"""mmfm.io.codecs: every transfer syntax gives back what was stored, through this plugin as through the others."""

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import RLELossless

from mmfm.errors import ReadError
from mmfm.imaging import Volume
from mmfm.io import codecs, read_studies
from mmfm.io.frames import decoders_of

LOSSLESS = {
    "1.2.840.10008.1.2.4.57": imagecodecs.ljpeg_encode,
    "1.2.840.10008.1.2.4.70": imagecodecs.ljpeg_encode,
    "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_encode,
    "1.2.840.10008.1.2.4.90": lambda array: imagecodecs.jpeg2k_encode(array, level=0, codecformat="j2k"),
    "1.2.840.10008.1.2.4.201": lambda array: imagecodecs.htj2k_encode(array),
}


def smooth(frames: int, bits: int, *, signed: bool) -> np.ndarray:
    """(frames, 40, 28): a slope with noise over the whole range of the bits, smallest and largest value among it."""
    noise = np.random.default_rng(bits).integers(0, 2 ** (bits - 3), (frames, 40, 28))
    array = np.linspace(0, 2**bits - 1 - 2 ** (bits - 3), 28)[None, None].astype(int) + noise
    array[:, 0, :2] = 0, 2**bits - 1
    return (array - signed * 2 ** (bits - 1)).astype("<i2" if signed else "<u2" if bits > 8 else "u1")


def stored(path):
    (study,) = read_studies(path)
    return study.series[0].instances[0].load()


def write_encapsulated(write_dicom, array, coded, syntax, bits, **attributes):
    path = write_dicom("x.dcm", array[0], BitsStored=bits, NumberOfFrames=len(array), **attributes)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate(coded)
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path)
    return path


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (16, False), (16, True)])
def test_lossless_syntaxes_give_back_what_was_stored(write_dicom, monkeypatch, syntax, bits, signed):
    array = smooth(3, bits, signed=signed)
    # Codestreams hold the low bits, unsigned; what they mean stands in the header.
    unsigned = array.view(f"u{array.itemsize}") & (2**bits - 1) if signed else array
    path = write_encapsulated(write_dicom, array, [LOSSLESS[syntax](frame) for frame in unsigned], syntax, bits)
    np.testing.assert_array_equal(stored(path), array)

    monkeypatch.setattr(codecs, "decoder_of", lambda syntax: None)
    if decoders_of(syntax, samples=1):  # lossless JPEG has no other; test_collections compares it with SimpleITK
        np.testing.assert_array_equal(stored(path), array, err_msg="another plugin reads something else")


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("extended", [True, False], ids=["sign extended", "low bits alone"])
@pytest.mark.parametrize("plugin", [True, False], ids=["imagecodecs", "others"])
def test_a_codestream_of_more_bits_than_are_stored(write_dicom, monkeypatch, syntax, extended, plugin):
    """Signed values of 12 bits in codestreams of 16 unsigned ones: only the low 12 count (PS3.5 8.1.1)."""
    array = smooth(2, 12, signed=True)
    coded = [LOSSLESS[syntax](frame.view("<u2") if extended else frame.view("<u2") & 0xFFF) for frame in array]
    path = write_encapsulated(write_dicom, array, coded, syntax, 12)
    if not plugin:
        monkeypatch.setattr(codecs, "decoder_of", lambda syntax: None)
        if not decoders_of(syntax, samples=1):
            pytest.skip("no other decoder is installed")
    np.testing.assert_array_equal(stored(path), array)


def test_jpeg_ls_holds_no_more_than_the_stored_bits(write_dicom):
    array = smooth(1, 16, signed=False)
    path = write_encapsulated(
        write_dicom, array, [imagecodecs.jpegls_encode(frame) for frame in array], "1.2.840.10008.1.2.4.80", 12
    )
    np.testing.assert_array_equal(stored(path), array & 0xFFF)


def test_values_of_jpeg_2000_beyond_the_stored_bits_are_kept_and_shown_white(write_dicom):
    array = smooth(1, 13, signed=False)
    coded = [LOSSLESS["1.2.840.10008.1.2.4.90"](frame) for frame in array]
    path = write_encapsulated(write_dicom, array, coded, "1.2.840.10008.1.2.4.90", 12)
    np.testing.assert_array_equal(stored(path), array)
    volume, _ = Volume.from_series(read_studies(path)[0].series[0])
    assert (volume.array.min(), volume.array.max()) == (0, 1)


@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, True), (16, False)])
def test_rle(write_dicom, bits, signed):
    array = smooth(2, bits, signed=signed)
    path = write_dicom("x.dcm", array[0], BitsStored=bits, NumberOfFrames=2, PixelData=array.tobytes())
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.save_as(path)
    np.testing.assert_array_equal(stored(path), array)


@pytest.mark.parametrize(("offset", "change"), [(0, 3), (0, 0), (4, 60), (8, 60), (8, 2**31)])
def test_run_lengths_that_point_out_of_their_frame_are_refused(write_dicom, offset, change):
    array = smooth(1, 16, signed=False)
    path = write_dicom("x.dcm", array[0], PixelData=array.tobytes())
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    frame = bytearray(frame)
    frame[offset : offset + 4] = change.to_bytes(4, "little")
    path = write_encapsulated(write_dicom, array, [bytes(frame)], RLELossless, 16)
    with pytest.raises(ReadError):
        stored(path)


@pytest.mark.parametrize("syntax", [syntax for syntax in LOSSLESS if not syntax.endswith(".90")])
def test_a_frame_without_an_end_is_refused_before_a_decoder_waits_for_it(write_dicom, syntax):
    array = smooth(1, 12, signed=False)
    coded = [LOSSLESS[syntax](frame)[:-40] for frame in array]
    path = write_encapsulated(write_dicom, array, coded, syntax, 12)
    with pytest.raises(ReadError, match="frame 1 without an end"):
        stored(path)


@pytest.mark.parametrize(
    ("syntax", "photometric"),
    [("1.2.840.10008.1.2.4.70", "RGB"), (RLELossless, "RGB"), (RLELossless, "YBR_FULL")],
)
def test_colour_without_loss_is_the_colour_that_was_stored(write_dicom, syntax, photometric):
    colours = np.random.default_rng(4).integers(0, 256, (20, 16, 3), dtype=np.uint8)
    path = write_dicom("x.dcm", colours, PhotometricInterpretation=photometric, PlanarConfiguration=0)
    native = stored(path)
    dataset = pydicom.dcmread(path)
    if syntax == RLELossless:
        dataset.compress(RLELossless)
        dataset.save_as(path)
    else:
        coded = [imagecodecs.jpeg8_encode(colours, lossless=True, colorspace="RGB", outcolorspace="RGB")]
        path = write_encapsulated(write_dicom, colours[None], coded, syntax, 8)
    np.testing.assert_array_equal(stored(path), native)


@pytest.mark.parametrize("planar", [0, 1])
def test_colour_in_jpeg_2000_is_by_pixel_whatever_the_header_says(write_dicom, planar):
    colours = np.random.default_rng(4).integers(0, 256, (20, 16, 3), dtype=np.uint8)
    coded = [imagecodecs.jpeg2k_encode(colours, level=0, codecformat="j2k", mct=False)]
    path = write_encapsulated(
        write_dicom, colours[None], coded, "1.2.840.10008.1.2.4.90", 8, PlanarConfiguration=planar
    )
    np.testing.assert_array_equal(stored(path)[0], colours)


def test_jpeg_of_12_bits(write_dicom):
    array = smooth(1, 12, signed=False)
    array[:] = np.linspace(0, 4095, 28).astype(int)
    coded = [imagecodecs.jpeg8_encode(frame, level=98, bitspersample=12) for frame in array]
    path = write_encapsulated(write_dicom, array, coded, "1.2.840.10008.1.2.4.51", 12)
    np.testing.assert_allclose(stored(path).astype(int), array, atol=16)


def test_a_frame_of_another_size_is_refused(write_dicom):
    array = smooth(1, 8, signed=False)
    coded = [imagecodecs.jpegls_encode(array[0, :20])]
    path = write_encapsulated(write_dicom, array, coded, "1.2.840.10008.1.2.4.80", 8)
    with pytest.raises(ReadError, match="a frame of 20 x 28 in 40 x 28"):
        stored(path)


def test_a_point_transform_is_undone(write_dicom):
    """Its Pt is the low half of the byte before the entropy-coded data, which itself codes the shifted values."""
    array = smooth(1, 11, signed=False) // 2 * 2 + 2048
    coded = bytearray(imagecodecs.ljpeg_encode(array[0] >> 1, bitspersample=12))
    scan = coded.index(b"\xff\xda")
    coded[scan + 1 + int.from_bytes(coded[scan + 2 : scan + 4], "big")] |= 1
    path = write_encapsulated(write_dicom, array, [bytes(coded)], "1.2.840.10008.1.2.4.70", 12)
    # This encoder predicted the first sample from 2 ** 11, where one that knows of Pt takes 2 ** 10, twice.
    np.testing.assert_array_equal(stored(path), array - 2048)


@pytest.mark.parametrize("syntax", [*LOSSLESS, "1.2.840.10008.1.2.4.50"])
def test_half_a_frame_is_refused(write_dicom, syntax):
    array = smooth(1, 8, signed=False)
    encode = LOSSLESS.get(syntax, imagecodecs.jpeg8_encode)
    coded = encode(array[0])
    path = write_encapsulated(write_dicom, array, [coded[: len(coded) // 2]], syntax, 8)
    with pytest.raises(ReadError, match="expected pixels as the header states"):
        stored(path)


def test_an_unknown_syntax_has_no_decoder():
    assert codecs.decoder_of("1.2.3") is None
    assert codecs.decoder_of("1.2.840.10008.1.2.4.100") is None, "a video"
