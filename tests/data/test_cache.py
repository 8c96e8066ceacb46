import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from mmfm.data.cache import VolumeCache
from mmfm.data.manifest import sha256
from mmfm.data.synthetic import draw_study, write_dicom
from mmfm.errors import ConfigError
from mmfm.imaging import Volume
from mmfm.io import read_studies
from mmfm.study import Instance, PixelHeader, Receipt, Series


@pytest.fixture
def series(tmp_path) -> Series:
    """A radiograph on disk, as a manifest gives it: with its hash."""
    path = write_dicom(draw_study(3, size=64, findings=("cardiomegaly",)), tmp_path / "files")[0]
    (study,) = read_studies(path)
    return replace(study.series[0], sha256=sha256(path))


@pytest.fixture
def cache(tmp_path) -> VolumeCache:
    return VolumeCache(tmp_path / "cache", max_bytes=1 << 30)


def entries(cache: VolumeCache) -> list:
    return [path for path in cache.folder.rglob("*") if path.is_file()]


def named(number: int) -> Series:
    """Returns a series without pixels whose content is known by a number."""
    instance = Instance(sop_instance_uid="1.2", pixels=PixelHeader(rows=1, columns=1))
    return Series(series_uid=str(number), instances=(instance,), sha256=f"{number:064x}")


def numbers(value: float, count: int = 1000) -> tuple[np.ndarray, Receipt]:
    receipt = Receipt(
        series_uid="made", source_format="DICOM", shape=(1, 1, count), quantity="stored", orientation="not stated",
        window="none", slices_used=1,
    )  # fmt: skip
    return np.full((1, 1, count), value, np.float32), receipt


def fails() -> tuple[np.ndarray, Receipt]:
    raise AssertionError("made again")


def test_a_volume_comes_back_as_it_was_made_and_is_decoded_once(cache, series):
    made, receipt = cache.volume(series)
    without_pixels = replace(series, instances=tuple(replace(i, load=None) for i in series.instances))
    found, again = cache.volume(without_pixels)
    assert again == receipt and found.quantity == made.quantity
    np.testing.assert_array_equal(found.array, made.array)
    assert (found.affine is None) == (made.affine is None)
    np.testing.assert_array_equal(found.array, Volume.from_series(series)[0].array)


def test_an_affine_comes_back_to_the_last_bit(cache, series):
    affine = ((1 / 3, 0.1, 0.0, -180.7), (0.0, 2 / 3, 0.1, 1e-17), (0.2, 0.0, 0.7, 3.0), (0.0, 0.0, 0.0, 1.0))
    array, receipt = numbers(1)
    cache.get(series, {}, lambda: (array, replace(receipt, affine=affine)))
    volume, again = cache.volume(series)
    assert again.affine == affine and volume.affine.tolist() == [list(row) for row in affine]


def test_an_entry_is_mapped_and_cannot_be_changed_through_it(cache):
    cache.get(named(1), {}, lambda: numbers(1))
    found, _ = cache.get(named(1), {}, fails)
    found[:] = 7
    assert cache.get(named(1), {}, fails)[0].max() == 1
    assert isinstance(found, np.memmap)


def test_what_the_numbers_depend_on_names_the_entry(cache):
    first = named(1)
    cache.get(first, {"image_size": 64}, lambda: numbers(1))
    others = (
        (named(2), {"image_size": 64}),
        (first, {"image_size": 32}),
        (replace(first, modality="CT"), {"image_size": 64}),
        (replace(first, view="PA"), {"image_size": 64}),
    )
    for value, (series, preprocessing) in enumerate(others, start=2):
        assert cache.get(series, preprocessing, lambda value=value: numbers(value))[0].max() == value
    assert len(entries(cache)) == 5
    array, receipt = cache.get(replace(first, series_uid="in another manifest"), {"image_size": 64}, fails)
    assert array.max() == 1 and receipt.series_uid == "in another manifest"


@pytest.mark.parametrize("damage", [b"", b"\x10", b"\xff" * 200, None], ids=["empty", "short", "other", "cut"])
def test_a_damaged_entry_is_made_again(cache, damage):
    cache.get(named(1), {}, lambda: numbers(1))
    (entry,) = entries(cache)
    entry.write_bytes(entry.read_bytes()[:-1] if damage is None else damage)
    assert cache.get(named(1), {}, lambda: numbers(2))[0].max() == 2
    assert cache.get(named(1), {}, fails)[0].max() == 2


def test_what_was_not_used_for_longest_makes_room(tmp_path):
    cache = VolumeCache(tmp_path / "cache", max_bytes=3 * 4600)  # an entry: 4,000 bytes and its receipt
    for number in (1, 2, 3):
        cache.get(named(number), {}, lambda number=number: numbers(number))
    for age, entry in enumerate(sorted(entries(cache), key=lambda path: path.stat().st_mtime_ns, reverse=True)):
        os.utime(entry, (time.time() - 60 * (age + 1),) * 2)
    cache.get(named(1), {}, fails)
    cache.get(named(4), {}, lambda: numbers(4))
    assert sum(entry.stat().st_size for entry in entries(cache)) <= cache.max_bytes
    for number in (1, 3, 4):
        cache.get(named(number), {}, fails)
    assert cache.get(named(2), {}, lambda: numbers(22))[0].max() == 22


def test_what_is_larger_than_the_cache_is_made_each_time(tmp_path):
    cache = VolumeCache(tmp_path / "cache", max_bytes=1000)
    assert cache.get(named(1), {}, lambda: numbers(1))[0].max() == 1
    assert entries(cache) == []


def test_parts_that_killed_processes_left_go(cache):
    cache.get(named(1), {}, lambda: numbers(1))
    (entry,) = entries(cache)
    old, new = entry.with_name(".a.partial"), entry.with_name(".b.partial")
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 90_000,) * 2)
    VolumeCache(cache.folder, max_bytes=1 << 30).get(named(2), {}, lambda: numbers(2))
    assert not old.exists() and new.exists()


_WORKER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_cache import VolumeCache, named, numbers
cache = VolumeCache(sys.argv[2], max_bytes=40_000)
for turn in range(40):
    for number in range(1, 13):
        found, receipt = cache.get(named(number), {}, lambda: numbers(number))
        assert found.min() == found.max() == number and receipt.series_uid == str(number)
"""


def test_many_processes_may_write_read_and_delete_at_once(tmp_path):
    folder = str(tmp_path / "cache")
    command = [sys.executable, "-c", _WORKER, os.path.dirname(__file__), folder]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [worker.communicate()[1] for worker in workers] == [""] * 3
    left = entries(VolumeCache(folder, max_bytes=40_000))
    assert left and all(path.suffix == ".safetensors" for path in left)
    assert sum(path.stat().st_size for path in left) <= 3 * 4600 + 40_000


def test_a_series_that_the_manifest_does_not_hash_is_refused(cache):
    with pytest.raises(ConfigError, match="expected the SHA-256 of every series"):
        cache.get(replace(named(1), sha256=None), {}, fails)


def test_pictures_of_patients_are_not_kept_where_others_can_read_them(tmp_path):
    assert VolumeCache(tmp_path / "new", max_bytes=1).folder.stat().st_mode & 0o777 == 0o700
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="only its owner can read"):
        VolumeCache(tmp_path / "open", max_bytes=1)


def test_a_folder_that_cannot_be_used_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cache folder: expected a folder with room to write; found File exists"):
        VolumeCache(tmp_path / "file", max_bytes=1)
