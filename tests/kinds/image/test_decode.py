import logging
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from pipeline.core.errors import DataError, RefusedError
from pipeline.examples import files
from pipeline.examples.files import load, read
from pipeline.kinds.image import KIND, decode
from tests.faults import fuzz
from tests.helpers import picture_cases
from tests.helpers.picture_cases import REFUSED, TAKEN

# Pillow's remarks on damaged files
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")


@pytest.mark.parametrize("case", TAKEN.values(), ids=TAKEN.keys())
def test_taken_upright_in_srgb(case):
    data = case.data()
    seen = decode.inspect(data)
    assert (seen.width, seen.height, seen.format) == (*case.size, case.format)
    picture = decode.decode(data)
    assert picture.size == case.size
    assert picture.mode == "RGB"
    np.testing.assert_allclose(picture_cases.fields_of(picture), case.fields, atol=case.near)


@pytest.mark.parametrize("name", sorted(REFUSED.keys() - {"empty.jpg"}))
def test_refused_with_a_reason(name):
    with pytest.raises(RefusedError, match=REFUSED[name].reason) as refused:
        decode.inspect(REFUSED[name].data())
    assert len(str(refused.value).splitlines()) == 1


def test_what_inspect_takes_decode_takes_at_any_size():
    for case in TAKEN.values():
        data = case.data()
        for shorter_side in (1, 8, 64, None):
            assert decode.decode(data, shorter_side).mode == "RGB"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(mode):
    data = picture_cases.jpeg(picture_cases.colour(mode).resize((4800, 3200)))
    picture = decode.decode(data, shorter_side=224)
    assert picture.size == (1200, 800)  # the half of it would be less than twice 224
    whole = decode.decode(data).resize((48, 32), Image.Resampling.BOX)
    part = picture.resize((48, 32), Image.Resampling.BOX)
    np.testing.assert_allclose(decode.pixels(part), decode.pixels(whole), atol=4)
    assert decode.inspect(data)[:2] == (4800, 3200)


def test_sixteen_bit_colour_keeps_its_upper_bits():
    random = np.random.default_rng(0).integers(0, 65536, (32, 48), dtype=np.uint16)
    for data in (
        picture_cases.png(Image.fromarray(random)),
        picture_cases.tiff(random),
        picture_cases.tiff(random, byteorder=">", compression="zlib"),
    ):
        decoded = decode.pixels(decode.decode(data))
        np.testing.assert_array_equal(decoded, np.repeat((random >> 8)[..., None], 3, axis=2))


@pytest.mark.timeout(120)  # minutes if every strip were read by itself
def test_a_tiff_of_two_million_strips_does_not_hang():
    seen = decode.inspect(picture_cases.tiff_of_strips(2_000_000))
    assert (seen.width, seen.height) == (64, 64)


def test_many_scans_of_a_small_jpeg_are_taken():
    data = picture_cases.jpeg(progressive=True)
    second, third = picture_cases.jpeg_scans(data)[1:3]
    many = data[:-2] + data[second:third] * 200 + b"\xff\xd9"
    assert decode.inspect(many)[:4] == decode.inspect(data)[:4]


def test_scans_are_counted_in_the_picture_and_not_behind_it(monkeypatch):
    monkeypatch.setattr(decode, "MAX_SCANS", 20 * 48 * 32 / decode.MAX_PIXELS)
    data = picture_cases.jpeg(progressive=True)
    decode.inspect(data + b"\xff\xda" * 99)
    second, third = picture_cases.jpeg_scans(data)[1:3]
    with pytest.raises(RefusedError, match="too many scans"):
        decode.inspect(data[:-2] + data[second:third] * 20 + b"\xff\xd9")


def in_pieces(count):
    """Sound pictures that hold that many tiny pieces beside."""
    jpeg, gif = picture_cases.jpeg(), TAKEN["still.gif"].data()
    png = picture_cases.png(picture_cases.colour())
    return {
        "chunks": picture_cases.with_chunks(png, picture_cases.chunk(b"abCd", b"") * count),
        "chunks behind": png[:-12] + picture_cases.chunk(b"abCd", b"") * count + png[-12:],
        "segments": jpeg[:2] + b"\xff\xe1\0\2" * count + jpeg[2:],
        "blocks": gif[:25] + b"!\xfe" + b"\x02ab" * count + b"\0" + gif[25:],
        "spaces": b"P5 " + b" " * count + b"48 32 255\n" + bytes(48 * 32),
        "letters": b"P2 48 %d 255\n" % (count // 48 + 1) + b"7 " * (count + 48),
    }


@pytest.mark.parametrize("kind", in_pieces(1).keys())
def test_a_file_of_too_many_pieces(kind, monkeypatch):
    data = in_pieces(3000)[kind]
    decode.inspect(data)
    monkeypatch.setattr(decode, "MAX_READS", 2000)
    with pytest.raises(RefusedError, match=r"^too many pieces: over 2,000 chunks"):
        decode.inspect(data)


def test_load_gives_the_bytes_of_a_regular_file(tmp_path):
    file = tmp_path / "a.jpg"
    file.write_bytes(b"some bytes")
    (tmp_path / "link").symlink_to(file)
    assert load(file, 10) == load(tmp_path / "link", 10) == b"some bytes"


def test_load_refuses_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RefusedError, match="not a regular file"):
        load(tmp_path / "pipe", 10)  # without waiting for a writer
    with pytest.raises(RefusedError, match="not a regular file"):
        load(Path("/dev/zero"), 10)
    with pytest.raises(RefusedError, match=r"cannot be read \(Is a directory"):
        load(tmp_path, 10)
    with pytest.raises(RefusedError, match=r"cannot be read \(No such file"):
        load(tmp_path / "gone", 10)
    with pytest.raises(RefusedError, match="empty file"):
        load(Path("/proc/kmsg"), 10)  # reading it would wait for the kernel


def test_load_refuses_a_huge_file_unread(tmp_path):
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(5_000_000_000)  # takes no room on the disk
    with pytest.raises(RefusedError, match="too large: 5,000 MB, at most 200 MB"):
        load(tmp_path / "huge.jpg", KIND.most_bytes)


def test_read_compares_with_the_manifest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = Path("a.jpg")
    file.write_bytes(b"as it was")
    digest = files.digest(b"as it was")
    assert read(file, digest) == b"as it was"
    file.write_bytes(b"as it is now")
    with pytest.raises(DataError, match=r"a\.jpg changed after it was ingested"):
        read(file, digest)
    file.unlink()
    with pytest.raises(DataError, match=r"a\.jpg: .*No such file"):
        read(file, digest)


def test_a_manifest_names_no_picture_outside_of_the_project(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"of somebody else")
    (tmp_path / "project" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    monkeypatch.chdir(tmp_path / "project")
    digest = files.digest(b"of somebody else")
    for path in (tmp_path / "secret.jpg", Path("../secret.jpg"), Path("data/../../secret.jpg")):
        with pytest.raises(DataError, match="leads out of the project"):
            read(path, digest)
    assert read(Path("link.jpg"), digest)  # as DVC links pictures from its cache


def test_damaged_pictures_are_taken_or_refused():
    """A slice of `tests/faults/fuzz.py`, whose page has the figures of a whole run."""
    sound = fuzz.seeds()
    outcomes = [fuzz.outcome(fuzz.damaged(number, sound)[1]) for number in range(400)]
    assert set(outcomes) == {"taken", "refused"}


def test_pillows_settings_are_ours_while_a_thread_reads_and_no_longer():
    def state():
        filters = [str(one) for one in warnings.filters]
        return filters, logging.getLogger("PIL").level, TiffImagePlugin.READ_LIBTIFF

    damaged, plain = (TAKEN[name].data() for name in ("damaged_exif.jpg", "colour.tif"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of which a picture that is taken knows nothing
        before = state()
        assert [decode.inspect(data).format for data in (damaged, plain)] == ["JPEG", "TIFF"]
        assert state() == before
    before = state()
    assert not TiffImagePlugin.READ_LIBTIFF
    with decode._settings:  # as a thread is that still reads
        with ThreadPoolExecutor(4) as pool:
            assert len(list(pool.map(decode.decode, [damaged, plain] * 10))) == 20
        assert TiffImagePlugin.READ_LIBTIFF
    assert state() == before


def test_the_limit_of_pixels_is_ours_and_a_lower_one_the_users(monkeypatch):
    data = picture_cases.bit_png(11_000, 11_000)  # Pillow's own limit is higher
    with pytest.raises(RefusedError, match=r"^too large: over 120,000,000 pixels; cut it"):
        decode.inspect(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(RefusedError, match=r"^too large: over 120,000,000 pixels; cut it"):
        decode.inspect(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(RefusedError, match=r"over 200 pixels, twice what PIL.Image.MAX_IMAGE"):
        decode.inspect(picture_cases.png(picture_cases.colour("RGB")))
