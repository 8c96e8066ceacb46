from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmfm.batch import Inputs
from mmfm.data import drawn as drawing
from mmfm.data.drawn import COUNTED, EXTENDED, NOISE_PART, PLACES, Drawn, DrawnDataset, drawn_texts, kept_volume
from mmfm.data.synthetic_volumes import draw_volume
from mmfm.text.regions import REGIONS, observations, region_words

HEAD = Drawn(region="head", count=4, seed=3, spacing_mm=(8.0, 8.0, 8.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("drawn")


def _made(drawn, report, rng):
    """Stands for the processor: keeps what it was given, as a study_uid that tells them apart."""
    empty = torch.zeros(0)
    of_series = ("pixels_SCHW", "views_S", "modalities_S")
    tensors = (*of_series, "input_ids_T", "labels_T", "states_O", "sides_O2", "severity_O", "codes_K")
    word = "straight" if rng is None else f"{rng.random():.12f}"
    return Inputs(
        study_uid=f"{drawn.seed} {float(drawn.affine[0, 3])} {word} {report.findings}",
        region=drawn.region,
        **dict.fromkeys(tensors, empty),
    )


def _same(one, other):
    assert one.images.keys() == other.images.keys()
    for name, image in one.images.items():
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, other.images[name])
    np.testing.assert_array_equal(one.segmentation, other.segmentation)
    np.testing.assert_array_equal(one.affine, other.affine)
    for name in ("region", "seed", "patient", "segments", "findings", "labels", "contrast"):
        assert getattr(one, name) == getattr(other, name)


def test_what_is_kept_is_what_was_drawn_in_whole_units(folder, monkeypatch):
    kept = kept_volume(HEAD, 0, folder)
    fresh = draw_volume("head", kept.seed, spacing=HEAD.spacing_mm)
    _same(kept, replace(fresh, images={name: np.round(image) for name, image in fresh.images.items()}))
    monkeypatch.setattr(drawing, "draw_volume", None)
    _same(kept_volume(HEAD, 0, folder), kept)
    with pytest.raises(TypeError):
        kept_volume(replace(HEAD, spacing_mm=(9.0, 8.0, 8.0)), 0, folder)  # another grid is another file
    assert not list(folder.glob("*.part"))


def test_the_phase_of_a_ct_is_kept(tmp_path):
    source = Drawn(region="abdomen", count=8, spacing_mm=(16.0, 16.0, 16.0))
    kept = [kept_volume(source, number, tmp_path) for number in range(0, source.count, 2)]
    fresh = [draw_volume("abdomen", volume.seed, spacing=source.spacing_mm).contrast for volume in kept]
    assert [volume.contrast for volume in kept] == fresh
    assert len(set(fresh)) > 1


def test_every_second_volume_is_the_mirror_twin_of_the_one_before(folder):
    one, twin, other = (kept_volume(HEAD, number, folder) for number in range(3))
    assert one.seed == twin.seed != other.seed
    for name, image in one.images.items():
        np.testing.assert_array_equal(twin.images[name], image[..., ::-1])
    for finding, mirrored in zip(one.findings, twin.findings, strict=True):
        assert [lesion.diameter_mm for lesion in finding.lesions] == [lesion.diameter_mm for lesion in mirrored.lesions]
        if finding.laterality in ("left", "right"):
            assert {finding.laterality, mirrored.laterality} == {"left", "right"}


def test_seeds_give_other_patients_and_so_do_regions():
    seeds = {
        drawing.study_seed(seed, "train", number, region=region)
        for region in REGIONS for seed in range(5) for number in range(100)
    }  # fmt: skip
    assert len(seeds) == len(REGIONS) * 5 * 100


def _dataset(folder, **changes):
    studies = [(HEAD, number) for number in range(4)]
    return DrawnDataset(studies, _made, folder=folder, seed=1, **changes)


def test_without_variation_a_study_is_always_the_same(folder):
    studies = _dataset(folder, vary=False)
    first = [studies[i].study_uid for i in range(4)]
    assert (
        first
        == [studies[i].study_uid for i in range(4)]
        == [_dataset(folder, vary=False)[i].study_uid for i in range(4)]
    )
    assert all("straight" in uid for uid in first) and len(set(first)) == 4


def test_with_variation_it_lies_otherwise_each_time_and_repeatably(folder):
    def epochs():
        torch.manual_seed(3)
        studies = _dataset(folder)
        return [studies[i].study_uid for _ in range(3) for i in range(4)]

    first = epochs()
    assert len(set(first)) == 12 and epochs() == first


def test_with_variation_it_has_noise_of_its_own_each_time(folder):
    torch.manual_seed(0)
    given = []

    def keep(drawn, report, rng):
        given.append(drawn.images)
        return _made(drawn, report, rng)

    kept = kept_volume(HEAD, 0, folder).images
    for vary, times in ((True, 6), (False, 1)):
        studies = DrawnDataset([(HEAD, 0)], keep, folder=folder, seed=1, vary=vary)
        for _ in range(times):
            studies[0]
    for name, image in kept.items():
        bright = np.percentile(image, 99)
        levels = [float(np.std(images[name] - image)) / bright for images in given]
        assert levels[-1] == 0, "straight, as drawn"
        assert len(set(levels)) == 7 and max(levels) < 1.2 * NOISE_PART and max(levels) > 0.3 * NOISE_PART


def test_workers_share_the_folder_and_never_repeat_how_a_patient_lay(tmp_path):
    torch.manual_seed(0)
    loader = DataLoader(
        _dataset(tmp_path), batch_size=1, num_workers=2, shuffle=True, persistent_workers=True, collate_fn=_first
    )
    given = [uid for _ in range(3) for uid in loader]
    assert len(given) == len(set(given)) == 12
    assert len(list(tmp_path.iterdir())) == 4, "one file a volume, and no part of one"


def _first(items):
    return items[0].study_uid


def test_labels_are_those_of_every_volume(folder):
    labels = list(_dataset(folder).labels())
    assert len(labels) == sum(len(kept_volume(HEAD, number, folder).labels) for number in range(4))
    assert {name for name, _ in labels} <= set(observations("head"))


def test_what_is_counted_and_where_has_words():
    regions = [region for region in REGIONS if region != "chest_radiograph"]
    assert {*COUNTED, *EXTENDED} <= {name for region in regions for name in observations(region)}
    assert not set(COUNTED) & set(EXTENDED)
    known = {name for region in regions for name in region_words(region)["location"]}
    assert {place.location for place in PLACES} <= known and len(set(PLACES)) == len(PLACES)


def test_a_tokenizer_learns_from_reports_of_every_source():
    texts = drawn_texts([replace(HEAD, count=1)])
    assert len(texts) == 8 * 3 and len(set(texts)) > 4
    assert drawn_texts([]) == []
