"""Pictures from instruments: deep values, many channels, DICOM; from ingest to answers alike."""

import io
import json
import math
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    MPEG2MPML,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
    generate_uid,
)

import headstart
from pipeline import augment, bundle, checks, evaluate, extract, ingest, kinds, report, train
from pipeline.core.errors import ParamsError, RefusedError
from pipeline.kinds.image import KIND, decode, tiff
from pipeline.kinds.image import Image as ImageKind
from pipeline.kinds.image.reading import PLAIN, Reading, parsed
from pipeline.serving.classifier import Classifier
from pipeline.tables.manifest import kind_in
from tests.helpers import picture_cases
from tests.helpers.picture_cases import chunk

Array = np.ndarray[Any, Any]

FILE, TYPE = Reading("file"), Reading("type")
RAMP = np.linspace(0, 1, 32 * 48).reshape(32, 48)  # from 0 to 1, all values different


def read(data, reading=PLAIN):
    """The pixels, and what stands in the manifest."""
    seen = decode.inspect(data, reading)
    picture = decode.decode(data, None, reading)
    assert picture.mode == "RGB"
    assert picture.size == seen[:2]
    return decode.pixels(picture), seen.read_as


def grey(data, reading=PLAIN):
    pixels, words = read(data, reading)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0], words


def refused(data, reading=PLAIN):
    with pytest.raises(RefusedError) as reason:
        decode.inspect(data, reading)
    with pytest.raises(RefusedError) as again:
        decode.decode(data, None, reading)
    assert str(again.value) == str(reason.value)
    assert len(str(reason.value).splitlines()) == 1
    return str(reason.value)


def scaled(values, low, high):
    """What `reading.eight_bits` should make, by the plain formula."""
    share = (values.astype(np.float64) - low) / (high - low)
    return np.floor(np.clip(share, 0, 1) * 255 + 0.5)


# Ranges


def counts():
    """Counts of a 12-bit camera."""
    return (100 + RAMP * 3900).astype(np.uint16)


def png16(array, kind, *chunks):
    rows = array.astype(">u2").reshape(len(array), -1).view(np.uint8)
    return picture_cases.raw_png(16, kind, rows, *chunks)


@pytest.mark.parametrize(
    "data",
    [
        lambda: picture_cases.png(Image.fromarray(counts())),
        lambda: picture_cases.tiff(counts()),
        lambda: picture_cases.tiff(counts(), byteorder=">", compression="zlib", predictor=True),
        lambda: picture_cases.file(Image.fromarray(counts()), "TIFF", compression="tiff_lzw"),
        lambda: b"P5 48 32 65535\n" + counts().astype(">u2").tobytes(),
    ],
    ids=["png", "tiff", "big-endian tiff", "lzw tiff", "pgm"],
)
def test_sixteen_bits_by_each_range(data):
    for reading, low, high in (
        (FILE, 100, 4000),
        (TYPE, 0, 65535),
        (Reading((0.0, 4095.0)), 0, 4095),
        (Reading((500.0, 1000.0)), 500, 1000),
    ):
        pixels, words = grey(data(), reading)
        np.testing.assert_array_equal(pixels, scaled(counts(), low, high))
        assert words == f"uint16 from {low} to {high}"
    pixels, words = grey(data())
    np.testing.assert_array_equal(pixels, counts() >> 8)
    assert words == "16 bits divided by 256"


@pytest.mark.parametrize("dtype", ["i1", "i2", "u4", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_other_numbers_of_a_tiff(dtype, byteorder):
    values = (RAMP * 200 - (0 if dtype[0] == "u" else 100)).astype(dtype)
    data = picture_cases.tiff(values, byteorder=byteorder)
    reading = Reading((float(values.min()), float(values.max())))
    if dtype != "i1":  # has no more than 8 bits
        pixels, words = grey(data, reading)
        np.testing.assert_array_equal(pixels, scaled(values, *reading.range))  # type: ignore[misc]
        assert words.startswith(np.dtype(dtype).name)
        assert grey(data, FILE) == (pytest.approx(pixels), words)
    if dtype in ("f4", "f8"):
        assert "set ingest.range" in refused(data)


def test_an_orientation_without_a_value_turns_nothing():
    data = bytearray(picture_cases.tiff(counts(), extratags=[(274, 3, 1, 6, True)]))
    struct.pack_into("<L", data, bytes(data).index(struct.pack("<HHL", 274, 3, 1)) + 4, 0)
    pixels, _ = grey(bytes(data), FILE)
    np.testing.assert_array_equal(pixels, scaled(counts(), 100, 4000))


def test_floats_from_0_to_1_are_the_type_of_floats():
    pixels, words = grey(picture_cases.tiff(RAMP.astype("f4")), TYPE)
    np.testing.assert_array_equal(pixels, scaled(RAMP.astype("f4"), 0, 1))
    assert words == "float32 from 0 to 1"


@pytest.mark.parametrize("kind", ["tiff", "png"])
def test_deep_colours_keep_their_lower_bits(kind):
    colours = np.stack([counts(), counts() // 2, counts() // 4], axis=2)
    data = picture_cases.tiff(colours, photometric="rgb") if kind == "tiff" else png16(colours, 2)
    pixels, words = read(data, Reading((0.0, 4095.0)))
    np.testing.assert_array_equal(pixels, scaled(colours, 0, 4095))
    assert words == "uint16 from 0 to 4095"
    pixels, words = read(data, FILE)  # one range for all channels keeps their balance
    np.testing.assert_array_equal(pixels, scaled(colours, colours.min(), colours.max()))
    pixels, words = read(data)
    np.testing.assert_array_equal(pixels, colours >> 8)
    assert words == "16 bits divided by 256"


def test_opacity_of_a_deep_png_is_no_value():
    reading = Reading((0.0, 4095.0))
    opacity = np.full((32, 48), 65535, np.uint16)
    opacity[:, 24:] = 0
    expected = scaled(counts(), 0, 4095)
    expected[:, 24:] = 255
    pixels, _ = grey(png16(np.stack([counts(), opacity], axis=2), 4), reading)
    np.testing.assert_array_equal(pixels, expected)
    pixels, _ = grey(png16(np.stack([counts()] * 3 + [opacity], axis=2), 6), reading)
    np.testing.assert_array_equal(pixels, expected)
    key = struct.pack(">HHH", *[int(counts()[5, 5])] * 3)
    pixels, _ = grey(png16(np.stack([counts()] * 3, axis=2), 2, chunk(b"tRNS", key)), reading)
    expected = scaled(counts(), 0, 4095)
    expected[counts() == counts()[5, 5]] = 255
    np.testing.assert_array_equal(pixels, expected)
    key = struct.pack(">H", int(counts()[5, 5]))
    pixels, _ = grey(png16(counts(), 0, chunk(b"tRNS", key)), reading)
    np.testing.assert_array_equal(pixels, expected)


def test_portable_maps_of_odd_ranges():
    data = b"P5 48 32 4095\n" + counts().astype(">u2").tobytes()
    pixels, words = grey(data, TYPE)
    np.testing.assert_array_equal(pixels, scaled(counts(), 0, 4095))
    assert words == "uint16 from 0 to 4095"
    colours = np.repeat(counts()[..., None], 3, axis=2).astype(">u2")
    assert "save it as PNG" in refused(b"P6 48 32 65535\n" + colours.tobytes(), FILE)
    floats = b"Pf 48 32 -1.0\n" + RAMP[::-1].astype("<f4").tobytes()
    np.testing.assert_array_equal(grey(floats, TYPE)[0], scaled(RAMP.astype("f4"), 0, 1))


def test_what_is_of_eight_bits_is_left_as_it_is():
    for reading in (FILE, TYPE, Reading((0.0, 4095.0))):
        for case in ("baseline.jpg", "colour.png", "colour.tif", "grey.tif", "photo.heic"):
            if case in picture_cases.TAKEN:
                data = picture_cases.TAKEN[case].data()
                seen = decode.inspect(data, reading)
                assert seen == decode.inspect(data)
                assert decode.decode(data, None, reading) == decode.decode(data)


def test_pictures_without_values():
    nothing = np.full((32, 48), np.nan, "f4")
    for reading in (FILE, TYPE, Reading((0.0, 5.0))):
        assert refused(picture_cases.tiff(nothing), reading) == (
            "no pixel has a value: all are NaN, infinite or absent"
        )
        for constant in (np.full((32, 48), 7, np.uint16), np.full((32, 48), 0.5, "f4")):
            value = f"{constant[0, 0]:g}"
            expected = f"constant: every value is {value}"
            assert refused(picture_cases.tiff(constant), reading) == expected
    assert refused(picture_cases.tiff(counts()), Reading((0.0, 1.0))) == (
        "no value is between 0 (black) and 1 (white): the values are from 100 to 4000"
    )


def test_values_that_are_no_numbers_are_black_and_counted():
    values = RAMP.astype("f4") + 1
    values[0, :3] = np.nan, np.inf, -np.inf
    pixels, words = grey(picture_cases.tiff(values), FILE)
    assert pixels[0, :3].tolist() == [0, 0, 0]
    rest = values[1:]
    low = float(values[0, 3])
    np.testing.assert_array_equal(pixels[1:], scaled(rest, low, 2))
    assert words == f"float32 from {low:.9g} to 2, 3 without a value black"


def test_white_may_be_zero_and_the_camera_held_sideways():
    data = picture_cases.tiff(counts(), photometric="miniswhite", extratags=[(274, 3, 1, 6, True)])
    pixels, _ = grey(data, FILE)
    np.testing.assert_array_equal(pixels, np.rot90(255 - scaled(counts(), 100, 4000), 3))


# Channels


def stack(channels, dtype="u2"):
    """[channels, 32, 48], each with a range of its own."""
    return np.stack([(RAMP * 1000 + 10 * c).astype(dtype) for c in range(channels)])


@pytest.mark.parametrize("form", ["pages", "imagej", "separate", "together"])
def test_forty_channels(form):
    values = stack(40)
    if form == "pages":
        data = picture_cases.tiff(values, photometric="minisblack", compression="zlib")
    elif form == "imagej":
        data = picture_cases.tiff(values, imagej=True)
    else:
        data = picture_cases.tiff(
            values if form == "separate" else np.moveaxis(values, 0, 2),
            photometric="minisblack",
            planarconfig="separate" if form == "separate" else "contig",
        )
    reading = Reading((0.0, 1400.0), (31, 2, 7))
    pixels, words = read(data, reading)
    expected = np.moveaxis(values[[30, 1, 6]], 0, 2)
    np.testing.assert_array_equal(pixels, scaled(expected, 0, 1400))
    what = "pages" if form in ("pages", "imagej") else "channels"
    assert words == f"{what} 31, 2, 7 of 40, uint16 from 0 to 1400"

    pixels, words = grey(data, Reading("file", (5,)))
    np.testing.assert_array_equal(pixels, scaled(values[4], values[4].min(), values[4].max()))
    assert "but ingest.channels is 41" in refused(data, Reading("file", (41,)))
    if form == "separate":  # Pillow takes the first plane
        assert read(data)[1] == "channel 1 of 40, 16 bits divided by 256"
    elif form == "together":
        assert refused(data) == (
            "a TIFF of 40 channels of uint16: set ingest.channels to those that become red, green"
            " and blue, or to the one that becomes grey"
        )
    else:
        assert read(data)[1] == "page 1 of 40, 16 bits divided by 256"


def test_channels_of_eight_bits_need_no_range_and_floats_do():
    values = np.moveaxis(stack(5, "f4"), 0, 2)
    bytes_of_it = (values / 8).astype(np.uint8)
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    data = picture_cases.tiff(bytes_of_it, **options)
    pixels, words = read(data, Reading(None, (3, 2, 1)))
    np.testing.assert_array_equal(pixels, bytes_of_it[..., [2, 1, 0]])
    assert words == "channels 3, 2, 1 of 5"
    floats = picture_cases.tiff(values, **options)
    assert refused(floats, Reading(None, (3, 2, 1))) == (
        "float32 values have no stated range; set ingest.range"
    )


def test_channels_of_any_picture_are_picked():
    reading = Reading(None, (3, 2, 1))
    colours = decode.pixels(picture_cases.colour())
    for case in ("colour.png", "colour.tif", "colour.bmp", "colour.ppm"):
        pixels, words = read(picture_cases.TAKEN[case].data(), reading)
        np.testing.assert_array_equal(pixels, colours[..., ::-1])
        assert words == "channels 3, 2, 1 of 3"
    data = picture_cases.TAKEN["colour.png"].data()
    np.testing.assert_array_equal(grey(data, Reading(None, (2,)))[0], colours[..., 1])
    grey_png = picture_cases.png(picture_cases.grey())
    assert refused(grey_png, reading) == "has 1 channel, but ingest.channels is 3, 2, 1"
    assert grey(grey_png, Reading(None, (1,)))[1] == "channels 1 of 1"


def test_infrared_beside_colours():
    values = np.moveaxis(stack(4), 0, 2)
    data = picture_cases.tiff(values, photometric="rgb", extrasamples=["unspecified"])
    pixels, _ = read(data, Reading((0.0, 1100.0), (4, 1, 2)))
    np.testing.assert_array_equal(pixels, scaled(values[..., [3, 0, 1]], 0, 1100))
    assert "a TIFF of 4 channels of uint16: set ingest.channels" in refused(data, FILE)


def test_pages_of_a_tiff_are_told():
    data = picture_cases.TAKEN["pages.tif"].data()
    assert read(data)[1] == "page 1 of 2"
    assert len(tiff.pages(data)) == 2
    differing = io.BytesIO()
    with tifffile.TiffWriter(differing) as writer:
        writer.write(counts())
        writer.write(counts()[:16])
    assert "differ in size or type" in refused(differing.getvalue(), Reading("file", (1, 2, 2)))


def test_whole_slides_are_told_what_cuts_them():
    for reading in (PLAIN, FILE, Reading("file", (1,))):
        data = bytearray(picture_cases.tiff(counts()))
        for tag, number, side in ((256, 48, 90_000), (257, 32, 60_000)):
            for form in ("<HHLL", "<HHLH"):
                entry = struct.pack(form, tag, 4 if form[-1] == "L" else 3, 1, number)
                if entry in data:
                    at = data.index(entry)
                    data[at : at + 12] = struct.pack("<HHLL", tag, 4, 1, side)
        assert refused(bytes(data), reading) == (
            "too large: over 120,000,000 pixels; cut it into tiles first, for instance with"
            " OpenSlide, tiatoolbox or `vips dzsave`"
        )


def test_what_is_left_of_a_file_is_remarked():
    manifest = pd.DataFrame({"path": ["a.tif", "b.tif", "c.tif"]})
    assert KIND.remarks(manifest) == []
    manifest["read_as"] = ["page 1 of 3", "", "page 1 of 2, 16 bits divided by 256"]
    assert KIND.remarks(manifest) == [
        "in 2 pictures, only the first page is used; the first is a.tif",
        "in 1 picture, 16-bit values are divided by 256 (ingest.range stretches them); the first is"
        " c.tif",
    ]
    manifest["read_as"] = "channels 1, 2, 3 of 5, uint16 from 0 to 9"
    assert "ingest.channels" in KIND.remarks(manifest)[0]
    assert kinds.named("image channels=1,2,3").remarks(manifest) == []


def test_pages_that_go_in_a_circle_are_counted_once():
    data = bytearray(picture_cases.TAKEN["pages.tif"].data())
    places = tiff.pages(bytes(data))
    (fields,) = struct.unpack_from("<H", data, places[1])
    struct.pack_into("<L", data, places[1] + 2 + 12 * fields, places[0])
    assert tiff.pages(bytes(data)) == places


def test_a_tiff_that_unpacks_to_more_than_it_says_costs_no_more():
    """libtiff stops where the strip is full."""
    bomb = zlib.compress(bytes(100_000_000))
    data = bytearray(picture_cases.tiff(counts(), compression="zlib"))
    page = tiff.page(bytes(data), tiff.pages(bytes(data))[0])
    assert page.width * page.height == counts().size
    at = bytes(data).index(struct.pack("<HHLL", 273, 4, 1, page.tags[273][0]))
    struct.pack_into("<L", data, at + 8, len(data))
    at = bytes(data).index(struct.pack("<HHLL", 279, 4, 1, page.tags[279][0]))
    struct.pack_into("<L", data, at + 8, len(bomb))
    assert refused(bytes(data) + bomb, FILE) == "constant: every value is 0"


def test_damaged_tiffs_of_instruments_are_taken_or_refused():
    random = np.random.default_rng(0)
    made = [
        picture_cases.tiff(stack(5), photometric="minisblack", compression="zlib"),
        picture_cases.tiff(np.moveaxis(stack(5), 0, 2), photometric="minisblack",
                           planarconfig="contig", tile=(16, 16)),
        picture_cases.tiff(stack(3, "f4"), photometric="rgb", planarconfig="separate"),
    ]  # fmt: skip
    outcomes = set()
    for turn in range(400):
        data = bytearray(made[turn % len(made)])
        for _ in range(random.integers(1, 6)):
            near = 400 if turn % 2 else len(data)
            data[random.integers(0, near)] = random.integers(0, 256)
        data = data[: random.integers(8, len(data))] if turn % 5 == 0 else data
        try:
            decode.inspect(bytes(data), Reading("file", (3, 2, 1)))
            outcomes.add("taken")
        except RefusedError:
            outcomes.add("refused")
    assert outcomes == {"taken", "refused"}


# DICOM


def dicom(values, syntax=ExplicitVRLittleEndian, **fields):
    """A file with one frame; `fields` come in addition, and those that are None are left out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["test"])
    meta.TransferSyntaxUID = syntax
    made = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    made.SOPClassUID = CTImageStorage
    made.PatientName = "Somebody^Secret"
    made.Rows, made.Columns = values.shape[:2]
    made.SamplesPerPixel = 1 if values.ndim == 2 else values.shape[2]
    made.PhotometricInterpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
    made.BitsAllocated = made.BitsStored = 8 * values.itemsize
    made.PixelRepresentation = int(values.dtype.kind == "i")
    if values.ndim == 3:
        made.PlanarConfiguration = 0
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    made.PixelData = values.astype(values.dtype.newbyteorder(order)).tobytes()
    made["PixelData"].VR = "OW" if values.itemsize > 1 else "OB"
    for name, value in fields.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    made.HighBit = made.BitsStored - 1
    file = io.BytesIO()
    pydicom.dcmwrite(file, made, enforce_file_format=True)
    return file.getvalue()


def ct():
    """Stored values of a scanner; with slope 1 and intercept -1024 they are Hounsfield units."""
    return (RAMP * 3000).astype(np.int16)


HOUNSFIELD = {"RescaleSlope": 1, "RescaleIntercept": -1024}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_a_window_of_a_ct(syntax):
    fields: dict[str, Any] = {**HOUNSFIELD, "WindowCenter": [40, 300], "WindowWidth": [400, 2000]}
    data = dicom(ct(), ExplicitVRLittleEndian if syntax == RLELossless else syntax, **fields)
    if syntax == RLELossless:
        opened = pydicom.dcmread(io.BytesIO(data))
        opened.compress(RLELossless)
        packed = io.BytesIO()
        opened.save_as(packed)
        data = packed.getvalue()
    pixels, words = grey(data)
    hounsfield = ct().astype(np.float64) - 1024
    # The standard's formula (PS3.3, C.11.2.1.2.1).
    expected = np.clip(((hounsfield - 39.5) / 399 + 0.5) * 255, 0, 255)
    np.testing.assert_array_equal(pixels, np.floor(expected + 0.5))
    assert words == "MONOCHROME2, window 40 width 400"
    assert decode.inspect(data).format == "DICOM"
    pixels, words = grey(data, Reading((-1000.0, 400.0)))  # what is declared goes before
    np.testing.assert_array_equal(pixels, scaled(hounsfield, -1000, 400))
    assert words == "MONOCHROME2, from -1000 to 400"
    pixels, _ = grey(data, FILE)
    np.testing.assert_array_equal(pixels, scaled(hounsfield, -1024, 1976))
    pixels, words = grey(data, TYPE)
    np.testing.assert_array_equal(pixels, scaled(hounsfield, -32768 - 1024, 32767 - 1024))


def test_the_lowest_values_of_monochrome1_are_white():
    window = {"WindowCenter": 1000, "WindowWidth": 2000, "VOILUTFunction": "LINEAR_EXACT"}
    pixels, words = grey(dicom(ct(), PhotometricInterpretation="MONOCHROME1", **window))
    np.testing.assert_array_equal(pixels, 255 - scaled(ct(), 0, 2000))
    assert words == "MONOCHROME1, window 1000 width 2000"


def test_a_sigmoid_and_a_table_of_levels():
    window = {"WindowCenter": 1000, "WindowWidth": 2000, "VOILUTFunction": "SIGMOID"}
    pixels, words = grey(dicom(ct(), **window))
    curve = 1 / (1 + np.exp(-4 * (ct() - 1000) / 2000))
    np.testing.assert_array_equal(pixels, scaled(curve, 0, 1))
    assert words.endswith("sigmoid")
    table = pydicom.Dataset()
    table.LUTDescriptor = [3001, 0, 12]
    levels = (np.linspace(0, 1, 3001) ** 2 * 4095).astype(np.uint16)
    table.add_new(0x00283006, "US", levels.tolist())
    pixels, words = grey(dicom(ct(), VOILUTSequence=Sequence([table])))
    np.testing.assert_array_equal(pixels, scaled(levels[ct()], 0, 4095))
    assert words == "MONOCHROME2, table of levels"


@pytest.mark.parametrize("form", ["MONOCHROME1", "MONOCHROME2"])
def test_what_fills_a_picture_up_is_black(form):
    values = ct() + 1
    values[:4] = -2000
    padded = dicom(values, PixelPaddingValue=-2000, PhotometricInterpretation=form)
    pixels, words = grey(padded, FILE)
    assert (pixels[:4] == 0).all()
    expected = scaled(values[4:], values[4:].min(), 3001)
    expected = 255 - expected if form == "MONOCHROME1" else expected
    np.testing.assert_array_equal(pixels[4:], expected)
    assert words.endswith(f"{4 * 48} without a value black")


def test_colours_of_dicom():
    colours = decode.pixels(picture_cases.colour())
    pixels, words = read(dicom(colours))
    np.testing.assert_array_equal(pixels, colours)
    assert words == "RGB"
    ybr = np.asarray(picture_cases.colour().convert("YCbCr"))
    pixels, words = read(dicom(ybr, PhotometricInterpretation="YBR_FULL"))
    np.testing.assert_allclose(pixels.astype(int), colours, atol=4)
    assert words == "YBR_FULL"
    jpeg = picture_cases.jpeg()
    data = dicom(
        colours,
        JPEGBaseline8Bit,
        PhotometricInterpretation="YBR_FULL_422",
        PixelData=encapsulate([jpeg]),
    )
    np.testing.assert_allclose(read(data)[0].astype(int), colours, atol=4)
    eight = (RAMP * 255).astype(np.uint8)
    np.testing.assert_array_equal(grey(dicom(eight))[0], eight)
    same = dicom(eight, RescaleSlope=1, RescaleIntercept=0)
    np.testing.assert_array_equal(grey(same)[0], eight)
    palette = {}
    for number, name in enumerate(("Red", "Green", "Blue")):
        column = (np.array(picture_cases.COLOURS)[:, number] * 256).astype("<u2")
        palette[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        palette[f"{name}PaletteColorLookupTableData"] = column.tobytes()
    numbers = np.repeat(np.repeat(np.array([[0, 1], [2, 3]], np.uint8), 16, 0), 24, 1)
    data = dicom(numbers, PhotometricInterpretation="PALETTE COLOR", **palette)
    pixels, words = read(data)
    np.testing.assert_array_equal(pixels, colours)
    assert words == "PALETTE COLOR"
    np.testing.assert_array_equal(read(dicom(colours), Reading(None, (3, 2, 1)))[0],
                                  colours[..., ::-1])  # fmt: skip


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: dicom(ct(), PixelData=None), r"^a DICOM file without pixels \(CT Image Storage\)"),
        (lambda: dicom(ct(), NumberOfFrames=30), "^a DICOM file with 30 frames: save each frame"),
        (lambda: dicom(ct(), JPEGLosslessSV1, PixelData=encapsulate([b"abcd"])),
         "^a DICOM file compressed with JPEG Lossless.*, for which there is no decoder: "),
        (lambda: dicom(ct(), MPEG2MPML, PixelData=encapsulate([b"abcd"])),
         "^a DICOM file compressed with MPEG2"),
        (lambda: dicom(ct(), DeflatedExplicitVRLittleEndian), "compressed as a whole"),
        (lambda: dicom(ct(), SharedFunctionalGroupsSequence=Sequence([pydicom.Dataset()])),
         "^an enhanced DICOM file"),
        (lambda: dicom(ct()), "^a DICOM file without a window: set ingest.range to file, type or"),
        (lambda: dicom(ct(), WindowCenter=40, WindowWidth=0), "window has width 0: set"),
        (lambda: dicom(ct(), WindowCenter=9000, WindowWidth=10), "^no value is between 8995"),
        (lambda: dicom(np.full((32, 48), 5, np.int16), WindowCenter=4, WindowWidth=10),
         "^constant: every value is 5$"),
        (lambda: dicom(ct())[:-200], "^damaged or cut short"),
        (lambda: dicom(ct())[:300], "^damaged or cut short|pixels"),
        (lambda: dicom(ct()[:3], WindowCenter=40, WindowWidth=400), "^too small: 48 × 3"),
        (lambda: dicom(ct(), Rows=60_000, Columns=60_000), "^too large: over 120,000,000 pixels"),
        (lambda: dicom(ct(), PhotometricInterpretation="HSV"), "HSV"),
    ],
)  # fmt: skip
def test_dicom_that_is_refused(make, reason):
    import re

    assert re.search(reason, refused(make()))


def test_without_the_set_the_reason_says_what_installs_it(monkeypatch):
    from pipeline.kinds.image import dicom as module

    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    module._dcmread.cache_clear()
    decode._learn_heic.cache_clear()
    assert "make setup EXTRAS=instruments" in refused(dicom(ct()))
    assert refused(picture_cases.HEIC).startswith("HEIC, which needs pi-heif: convert it to JPEG")


def test_after_an_update_of_pydicom_dicom_files_alone_are_inspected_again(project, monkeypatch):
    from pipeline.core import packages
    from pipeline.examples import files
    from pipeline.sources.remembered import Memory

    version, seen = packages.version, []
    inspect = ImageKind.inspect
    monkeypatch.setattr(ImageKind, "inspect", lambda *of: (seen.append(of[1]), inspect(*of))[1])
    sound = dicom(ct(), **HOUNSFIELD, WindowCenter=40, WindowWidth=400)
    both = [sound, picture_cases.HEIC]

    def looked_at():
        seen.clear()
        memory = Memory(ImageKind(), {})
        memory.inspect([(data, files.digest(data)) for data in both])
        memory.keep()
        memory.close()
        return seen

    assert looked_at() == both
    assert looked_at() == []
    monkeypatch.setattr(packages, "version", lambda n: "99" if n == "pydicom" else version(n))
    assert looked_at() == [sound]


def test_nothing_of_a_patient_is_kept():
    data = dicom(ct(), WindowCenter=40, WindowWidth=400)
    assert b"Secret" in data
    assert "Secret" not in repr(decode.inspect(data))
    assert b"Secret" not in KIND.show(data, 64).data


def test_damaged_dicom_is_taken_or_refused():
    random = np.random.default_rng(0)
    sound = dicom(ct(), **HOUNSFIELD, WindowCenter=40, WindowWidth=400)
    outcomes = set()
    for _ in range(300):
        data = bytearray(sound)
        for _ in range(random.integers(1, 6)):
            data[random.integers(132, 900)] = random.integers(0, 256)
        try:
            width, height, *_ = decode.inspect(bytes(data))
            outcomes.add("taken" if min(width, height) > 0 else "of no size")
        except RefusedError as error:
            outcomes.add("refused" if str(error).strip() else "without a reason")
    assert outcomes == {"taken", "refused"}


# The seam: what is declared goes with the kind


def test_a_kind_says_what_is_declared(project):
    from pipeline.core import params

    def named(**settings):
        project.set(**{f"ingest.{key}": value for key, value in settings.items()})
        return kinds.declared(params.load(kinds.schema).ingest)

    assert named() == "image"
    assert named(range=[0, 4095], channels=[3, 2, 1]) == "image range=0.0,4095.0 channels=3,2,1"
    kind = kinds.named("image range=0.0,4095.0 channels=3,2,1")
    assert isinstance(kind, ImageKind)
    assert kind.declared == Reading((0.0, 4095.0), (3, 2, 1))
    assert str(kind.declared) == " range=0.0,4095.0 channels=3,2,1"
    for ask in (
        lambda k: k.inspected_by(),
        lambda k: k.views_made_by(True),
        lambda k: k.copies_by(),
    ):
        assert ask(kind) == ask(KIND) + str(kind.declared)
    assert named(range="file", channels=2) == "image range=file channels=2"
    for wrong in (
        "range=none",
        "range=5,4",
        "channels=1,2",
        "channels=0",
        "pages=1",
        "range=1,nan",
    ):
        with pytest.raises(ParamsError, match="the read settings are not valid"):
            kinds.named(f"image {wrong}")
    with pytest.raises(ParamsError, match="vectors have no read settings"):
        kinds.named("vector range=file")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"range": "guess"}, r"ingest\.range is 'guess'; should be 'file' or 'type'"),
        ({"range": [5, 1]}, r"range is \[5.*\]; the first number becomes black"),
        ({"range": [1]}, r"ingest\.range"),
        ({"range": [0, float("inf")]}, r"ingest\.range"),
        ({"channels": [1, 2]}, r"ingest\.channels"),
        ({"channels": 0}, r"ingest\.channels is 0"),
    ],
)
def test_parameters_that_make_no_sense(project, settings, said):
    from pipeline.core import params

    project.set(**{f"ingest.{key}": value for key, value in settings.items()})
    with pytest.raises(ParamsError, match=said) as error:
        params.load(kinds.schema)
    assert len(str(error.value).splitlines()) == 1


def test_vectors_have_no_range_but_their_file_may_list_it(project):
    from pipeline.core import params

    project.set(**{"ingest.kind": "vector", "augment": {"views": 0}})
    assert kinds.declared(params.load(kinds.schema).ingest) == "vector"
    project.set(**{"ingest.range": "file"})
    with pytest.raises(ParamsError, match=r"ingest\.range is not a parameter; ingest takes kind, "):
        params.load(kinds.schema)


def test_what_is_remembered_is_what_was_seen():
    for form, read_as in (("JPEG", ""), ("TIFF", "page 1 of 2")):
        for sharpness in (-1.25, math.nan):
            seen = (48, 32, form, read_as, 7, 250, sharpness)
            assert KIND.recall(KIND.remember(seen)) == seen


def test_keys_of_an_ordinary_project_are_those_of_before():
    from importlib.metadata import version

    assert KIND.views_made_by(False) == f"pillow {version('pillow')}"
    assert KIND.inspected_by() == f"inspection 2, Pillow {version('pillow')}"
    assert KIND.view_code == 1
    assert parsed({}) == PLAIN
    assert str(PLAIN) == ""


@pytest.mark.slow
def test_from_five_channels_to_answers(project, draw_picture, capsys):
    project.set(
        **{
            "ingest.source": "folder",
            "ingest.path": "data/raw/cells",
            "ingest.channels": [5, 3, 1],
            "ingest.range": [0, 4095],
            "augment.views": 1,
            "evaluate.bootstrap": 10,
        }
    )
    same = Path("same.png")
    for i in range(40):
        picture = decode.pixels(draw_picture(i, square=bool(i % 2)))
        values = np.zeros((*picture.shape[:2], 5), np.uint16)
        values[..., [4, 2, 0]] = np.round(picture / 255 * 4095)
        file = Path("data/raw/cells") / ("disc", "square")[i % 2] / f"{i}.tif"
        file.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(file, values, photometric="minisblack", planarconfig="contig")
        if i == 0:
            Image.fromarray(picture).save(same)
    for stage in (ingest, augment, extract, train, evaluate, checks, bundle, report):
        getattr(stage, stage.__name__.removeprefix("pipeline."))()
    manifest = pd.read_parquet("data/manifest.parquet")
    assert set(manifest["read_as"]) == {"channels 5, 3, 1 of 5, uint16 from 0 to 4095"}
    name = "image range=0.0,4095.0 channels=5,3,1"
    assert kind_in(Path("data/manifest.parquet")) == name
    assert json.loads(Path("bundle/bundle.json").read_text())["kind"] == name
    assert json.loads(Path("reports/metrics.json").read_text())["test"]["accuracy"] > 0.8

    # The bundle reads the raw file as ingest did.
    model = headstart.load("bundle")
    raw = model.predict("data/raw/cells/disc/0.tif")[0]
    assert raw.label == "disc"
    classifier = Classifier(Path("bundle"))
    seen = kinds.Pixels(64, 64, "bicubic", (0.0,) * 3, (1.0,) * 3)
    np.testing.assert_array_equal(
        classifier.kind.read(Path("data/raw/cells/disc/0.tif").read_bytes(), seen),
        KIND.read(same.read_bytes(), seen),
    )
    with pytest.raises(RefusedError, match=r"^has 3 channels, but ingest\.channels is .*5"):
        classifier.answer(same.read_bytes())

    # Another range computes all again; the first one back computes nothing.
    capsys.readouterr()
    project.set(**{"ingest.range": "type"})
    ingest.ingest(), augment.augment(), extract.extract()
    assert " 0 reused" in capsys.readouterr().out
    project.set(**{"ingest.range": [0, 4095]})
    ingest.ingest(), augment.augment(), extract.extract()
    assert " 0 computed" in capsys.readouterr().out
