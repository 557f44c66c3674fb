"""Packing stage by stage, and the choice under a budget, on a place without pictures."""

from dataclasses import replace

import numpy as np
import pytest

from hfnet_edge.errors import InputError, MismatchError
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.codecs import UNIT, CodecName
from hfnet_edge.map.container import Section
from hfnet_edge.map.map_file import TILE
from hfnet_maps.build.merge import merge
from hfnet_maps.content import BuiltMap, content_of, read_content
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack import folds, summary
from hfnet_maps.pack.budget import choose, curve
from hfnet_maps.pack.codebooks import encode, fit_codec
from hfnet_maps.pack.ladder import Ladder
from hfnet_maps.pack.packer import Packer, project_globals
from hfnet_maps.pack.selection import GRID, cells_of, cover, rank
from hfnet_maps.pack.settings import ALL, Settings, all_settings
from hfnet_maps.pack.summary import summarise
from hfnet_maps.pack.writer import (
    Counts,
    expected_lengths,
    expected_size,
    full_sections,
    in_file_order,
    lay_out,
    size_of,
    spatial_order,
    to_map,
    write_map,
)
from synthetic import CAMERA, looking_at, place, toy_source

OFFSET = np.array([1000.0, -2000.0, 50.0])


@pytest.fixture(scope="module")
def here():
    p = place(landmarks=1500, images=12)
    return p, p.source(noise=0.5)


@pytest.fixture(scope="module")
def packer(here):
    return Packer(here[1])


@pytest.fixture(scope="module")
def small():
    p = place(landmarks=500, images=8)
    return p, p.source(noise=0.5)


def queries(p, count=6):
    angles = np.linspace(0.2, 5.9, count)
    poses = [looking_at(OFFSET + 14 * np.array([np.cos(a), np.sin(a), 0.2]), OFFSET) for a in angles]
    return [(pose, p.features(pose, 0.5, 100)) for pose in poses]


def errors(p, m, count=6):
    found = [(pose, localize_features(m, features, CAMERA)) for pose, features in queries(p, count)]
    return [np.inf if r.pose is None else pose_error(r.pose, pose)[0] for pose, r in found]


# --- sources


def test_a_written_source_is_read_back(here, tmp_path):
    _, source = here
    write_map(full_sections(source), tmp_path / "a.hfmap")
    back, expected = read_content(tmp_path / "a.hfmap"), in_file_order(source)
    for name in ("landmarks", "images", "descriptors", "global_descriptors"):
        np.testing.assert_array_equal(getattr(back, name), getattr(expected, name))
    np.testing.assert_allclose(back.positions, expected.positions, atol=2e-4)
    assert isinstance(back, BuiltMap) and back.names == source.names and back.networks == source.networks
    for name in ("pixels", "observed", "other_offsets", "others", "other_descriptors"):
        np.testing.assert_array_equal(getattr(back.keypoints, name), getattr(expected.keypoints, name))
    assert back.keypoints.cameras == source.keypoints.cameras


def test_taking_landmarks_keeps_what_belongs_to_them(here):
    _, source = here
    wanted = np.array([700, 3, 41])
    taken = source.without_keypoints().take(wanted)
    for number, landmark in enumerate(wanted):
        rows, before = taken.landmarks == number, source.landmarks == landmark
        np.testing.assert_array_equal(taken.images[rows], source.images[before])
        np.testing.assert_array_equal(taken.descriptors[rows], source.descriptors[before])
        np.testing.assert_array_equal(taken.positions[number], source.positions[landmark])
    assert len(taken.landmarks) == np.isin(source.landmarks, wanted).sum()


def test_left_out_images_leave_nothing_behind(here):
    _, source = here
    rest = source.without_images(np.array([0, 5]))
    assert rest.names == tuple(n for i, n in enumerate(source.names) if i not in (0, 5))
    kept = ~np.isin(source.images, (0, 5))
    tracks = np.bincount(source.landmarks[kept], minlength=len(source.positions))
    assert len(rest.positions) == (tracks >= 2).sum()
    assert np.bincount(rest.landmarks).min() >= 2
    assert len(rest.landmarks) == kept.sum() - (tracks == 1).sum()
    np.testing.assert_array_equal(rest.keypoints.observed[rest.observed(0)].shape, (len(rest.observed(0)), 2))


def test_a_reference_image_is_a_query_with_all_its_keypoints(here):
    p, source = here
    features = source.features(4)
    assert len(features.keypoints) == len(source.observed(4)) + 30
    r = localize_features(p.map(), features, CAMERA)
    assert pose_error(r.pose, source.poses[4])[0] < 0.02


# --- stages


def test_neighbours_share_a_tile():
    rng = np.random.default_rng(0)
    positions = rng.uniform(0, 100, (4000, 3)) * (1, 1, 0.05)
    order = spatial_order(positions)
    assert sorted(order) == list(range(4000))
    tiles = [positions[order[i : i + 256]] for i in range(0, 4000, 256)]
    assert np.median([np.ptp(t, axis=0)[:2].prod() for t in tiles]) < 2.5 * 100 * 100 / 16


def test_far_landmarks_cost_the_others_no_resolution():
    p = place(landmarks=1500, images=8)
    landmarks = p.landmarks.copy()
    landmarks[[5, 700]] += (300_000.0, 0, 0)
    source = in_file_order(replace(p.source(), positions=landmarks))
    m = to_map(lay_out(source))
    error = np.abs(m.positions(np.arange(1500)) + m.origin - source.positions).max(axis=1)
    assert (error[: 1500 // 256 * 256] < 2e-4).all()
    assert source.positions[-2:, 0].min() > 300_000


def test_ranked_landmarks_cover_every_image_and_its_corners():
    p = place(landmarks=3000, images=10)
    source = p.source()
    order = rank(source)
    assert sorted(order) == list(range(len(source.positions)))
    cells, count = cells_of(source)
    first = np.zeros(len(source.positions), bool)
    first[order[:300]] = True
    kept = np.bincount(cells[first[source.landmarks]], minlength=count)
    everything = np.bincount(cells, minlength=count)
    assert kept[everything > 20].min() > 0 and count == 10 * GRID**2
    random = np.zeros(len(first), bool)
    random[np.random.default_rng(0).choice(len(first), 300, replace=False)] = True
    assert kept.min() > np.bincount(cells[random[source.landmarks]], minlength=count).min()


def test_k_cover_is_the_shortest_prefix_that_covers():
    source = toy_source([[0, 1, 2], [2, 3], [3, 4, 5]])
    order = np.array([2, 3, 0, 4, 1, 5])
    assert cover(source, order, 1) == 2
    assert cover(source, order, 2) == 4
    assert cover(source, order, 99) == 6


def test_one_descriptor_is_the_mean_and_several_tell_sides_apart():
    side = np.eye(32)[0], np.eye(32)[1]
    rng = np.random.default_rng(0)
    rows = [np.rint(UNIT * (side[i % 2] + rng.normal(0, 0.01, 32))).clip(-127, 127)[None] for i in range(6)]
    source = toy_source([[0]] * 6, rows)
    mean = summarise(source, 1, -1.0)
    assert mean.described.tolist() == [0]
    np.testing.assert_allclose(mean.descriptors[0, :2] / UNIT, np.sqrt([0.5, 0.5]), atol=0.02)
    two = summarise(source, 4, 0.9)
    assert two.described.tolist() == [0, 0]
    assert sorted(two.descriptors.argmax(axis=1)) == [0, 1] and (two.descriptors.max(axis=1) > 120).all()


def test_summaries_of_a_place_do_not_depend_on_the_chunks(here, monkeypatch):
    _, source = here
    whole = summarise(source.without_keypoints(), 4, 0.97)
    monkeypatch.setattr(summary, "CHUNK", 100)
    pieces = summarise(source.without_keypoints(), 4, 0.97)
    np.testing.assert_array_equal(whole.described, pieces.described)
    np.testing.assert_array_equal(whole.descriptors, pieces.descriptors)
    assert np.bincount(whole.described).min() >= 1 and np.bincount(whole.described).max() <= 4


@pytest.mark.parametrize(
    ("name", "dim", "subspaces", "least"),
    [("int8", 32, 0, 1.0), ("int8", 24, 0, 0.9), ("pq", 32, 16, 0.9), ("pq", 32, 4, 0.4), ("binary", 32, 0, 0.4)],
)
def test_codecs_keep_neighbours(here, name, dim, subspaces, least):
    """Share of descriptors whose nearest of another landmark's observations stays the right landmark."""
    source = here[1].without_keypoints().take(np.arange(0, 1500, 3))
    codec = fit_codec(CodecName(name), source.descriptors, dim, subspaces)
    codes = encode(codec, source.descriptors)
    assert codes.shape == (len(source.descriptors), codec.row_bytes)
    first = np.flatnonzero(np.diff(source.described, prepend=-1))
    others = np.setdiff1d(np.arange(len(codes)), first)[::7]
    references = codec.decode(codes[first]).astype(np.float32)  # exact for what is int8
    asked = codec.query(source.descriptors[others]).astype(np.float32)
    distance = (asked**2).sum(1)[:, None] + (references**2).sum(1) - 2 * asked @ references.T
    right = source.described[first][distance.argmin(axis=1)] == source.described[others]
    assert right.mean() >= least


def test_projected_globals_rank_as_before():
    rng = np.random.default_rng(0)
    low = rng.normal(size=(60, 8)) @ rng.normal(size=(8, 16))  # of rank 8
    rows = np.rint(UNIT * low / np.linalg.norm(low, axis=1, keepdims=True)).astype(np.int8)
    projected, projection = project_globals(rows, 8)
    assert projected.shape == (60, 8)
    before = rows.astype(int) @ rows.T.astype(int)
    after = projected.astype(int) @ projected.T.astype(int)
    np.testing.assert_allclose(after, before, atol=300)  # of 16129
    packed = toy_source([[0]] * 60).encoded()
    m = to_map(lay_out(replace(packed, global_descriptors=projected, global_projection=projection)))
    np.testing.assert_array_equal(m.global_query(rows[3]), projected[3])


# --- sizes

KEPT = {
    "int8": Settings(CodecName.INT8, 32, 0, 1, 16),
    "int8 x 1-4": Settings(CodecName.INT8, 24, 0, 4, 8),
    "int8 each": Settings(CodecName.INT8, 32, 0, ALL, 16),
    "pq": Settings(CodecName.PQ, 32, 8, 1, 16),
    "pq x 1-4": Settings(CodecName.PQ, 24, 6, 4, 8),
    "binary": Settings(CodecName.BINARY, 32, 0, 1, 8),
}


@pytest.fixture(scope="module")
def changing():
    """The packer of a place where every third landmark looks different in every image."""
    p = place(landmarks=400, images=6)
    source = p.source()
    other = source.landmarks % 3 == 0
    descriptors = source.descriptors.copy()
    descriptors[other] = quantize(p.rng.normal(size=(int(other.sum()), 32)))
    return Packer(replace(source, descriptors=descriptors))


@pytest.mark.parametrize("count", [30, 390, 400])
@pytest.mark.parametrize("kept", KEPT)
def test_the_writer_says_beforehand_how_large_a_map_gets(changing, kept, count):
    """Each section exactly, or as `expected_lengths` says."""
    settings = KEPT[kept]
    sections = changing.pack(settings, count)
    packed = changing.encoded(settings).take(np.sort(changing.order[:count]))
    numbers = (np.array([n]) for n in (count, len(packed.landmarks), len(packed.codes)))
    counts = Counts(packed.names, *numbers, 32, 16)
    lengths = {kind: part.nbytes if isinstance(part, np.ndarray) else len(part) for kind, part in sections.items()}
    expected = expected_lengths(counts, settings)
    assert set(lengths) - set(expected) <= {Section.META, Section.THRESHOLDS}
    for kind, length in expected.items():
        slack = {Section.TILES: TILE.itemsize, Section.DESCRIPTOR_COUNTS: 1}.get(kind, 0)
        if kind is not Section.OBSERVATION_LISTS:
            assert 0 <= lengths.get(kind, 0) - length <= slack, kind
    whole = expected_size(counts, settings)[0]
    assert changing.sizes(settings)[count - 1] == whole
    lists = lengths[Section.OBSERVATION_LISTS] - expected[Section.OBSERVATION_LISTS][0]
    assert abs(whole + lists - size_of(sections)) < 700


@pytest.mark.parametrize("share", [0.04, 0.1, 0.2])
def test_lists_of_few_of_the_landmarks_are_as_long_as_expected(share):
    rng = np.random.default_rng(0)
    source = toy_source([np.flatnonzero(rng.random(3000) < share).tolist() for _ in range(12)])
    numbers = (np.array([n]) for n in (3000, len(source.landmarks), len(source.described)))
    expected = expected_lengths(Counts(source.names, *numbers, 32, 16), KEPT["int8"])[Section.OBSERVATION_LISTS][0]
    assert 0.75 < len(lay_out(source)[Section.OBSERVATION_LISTS]) / expected < 1.35


# --- budgets


@pytest.mark.parametrize("budget", [20_000, 60_000, 150_000])
@pytest.mark.parametrize("codec", [None, *CodecName])
def test_a_budget_is_kept_and_filled(packer, budget, codec):
    settings = all_settings(packer.source, budget, codec)[0]
    sections = packer.pack(settings, packer.fit(settings, budget))
    size = size_of(sections)
    assert size <= budget and (size >= 0.95 * budget or packer.fit(settings, budget) == len(packer.order))
    m = to_map(sections)
    m.check_all()
    assert len(m.file.data) == size


@pytest.mark.slow
def test_a_larger_budget_is_never_judged_worse(small):
    """Each budget by itself, nothing remembered from one to the next."""
    p, source = small
    before = -1.0
    for budget in (11_000, 14_000, 19_000, 33_000, 80_000):
        sections, tried = choose(source, budget)
        assert tried[0].size == size_of(sections) <= budget
        assert tried[0].score >= before
        before = tried[0].score
    assert max(errors(p, to_map(sections))) < 0.1


def test_the_map_that_is_written_is_the_one_that_was_judged(small):
    _, source = small
    sections, tried = choose(source, 25_000)
    ladder = Ladder(source)
    again = ladder.jury.judge(tried[0])
    np.testing.assert_array_equal(again.scores, tried[0].scores)
    assert to_map(sections).landmark_count == tried[0].landmarks
    again, _ = choose(source, 25_000)
    assert sections.keys() == again.keys()
    assert all(bytes(sections[kind]) == bytes(again[kind]) for kind in sections)


def test_the_choice_looks_at_left_out_images_alone(small):
    _, source = small
    _, tried = choose(source, 20_000)
    full = tried[-1]
    assert full.settings is None and full.landmarks == len(source.positions)
    assert len(full.scores) == len(source.names)  # every image was left out once
    assert full.localized == 1 and full.median[0] < 0.05
    best = max(t.score for t in tried[:-1])
    assert tried[0].score > best - 0.1 and tried[0].localized == 1


def test_too_small_a_budget_names_what_is_needed(here):
    _, source = here
    with pytest.raises(InputError, match=r"1000 bytes is too small.*alone take \d+"):
        choose(source, 1000)
    narrow = replace(source, networks=replace(source.networks, local_dim=4), descriptors=source.descriptors[:, :4])
    with pytest.raises(InputError, match="wider descriptors than 4-D"):
        choose(narrow, 10_000, CodecName.PQ)


def test_a_budget_beyond_the_map_keeps_what_is_judged_best(small):
    _, source = small
    sections, tried = choose(source, 10**9)
    assert tried[0].score >= tried[-1].score and tried[-1].settings is None
    assert tried[0].size < size_of(full_sections(source)) and size_of(sections) == tried[0].size
    assert not any(kind >= Section.SOURCE_IMAGES for kind in sections)


def test_a_packed_map_is_packed_again_with_its_own_tables(here, packer):
    p, _ = here
    first = to_map(packer.pack(Settings(CodecName.PQ, 32, 8, 4, 16), 1000))
    sections, tried = choose(content_of(first), len(first.file.data) * 2 // 3)
    again = to_map(sections)
    assert tried[0].scores is None and again.codec.name == "pq"
    plain = to_map(packer.pack(Settings(CodecName.INT8, 32, 0, 1, 16), 1000))
    kept = to_map(choose(content_of(plain), 40_000)[0])
    assert kept.codec.name == "int8" and kept.codec.projection is None
    assert 0.95 < len(again.file.data) / (len(first.file.data) * 2 // 3) <= 1
    np.testing.assert_array_equal(again.codec.codebook, first.codec.codebook)
    assert max(errors(p, again)) < 0.1
    with pytest.raises(InputError, match="packed with the codec pq"):
        choose(content_of(first), 10_000, CodecName.INT8)


def test_without_keypoints_the_usual_settings_are_taken_and_a_curve_is_refused(here):
    _, source = here
    bare = source.without_keypoints()
    sections, tried = choose(bare, 40_000)
    assert tried[0].scores is None and size_of(sections) <= 40_000
    with pytest.raises(InputError, match="lacks the keypoints of its reference images"):
        curve(bare)


def test_the_curve_rises_and_passes_through_every_choice(small):
    _, source = small
    ladder = Ladder(source)
    _, tried = choose(source, 25_000, ladder=ladder)
    points = curve(source, ladder=ladder)
    scores = [point.score for point in points[:-1]]
    assert points[-1].settings is None and scores == sorted(scores) and len(scores) > 2
    assert tried[0] in points
    alone = curve(source)
    assert alone == points and [point.score for point in alone] == [point.score for point in points]


def test_large_maps_are_judged_in_the_neighbourhood_of_the_left_out(here, monkeypatch):
    _, source = here
    monkeypatch.setattr(folds, "MOST_QUERIES", 3)
    monkeypatch.setattr(folds, "NEIGHBOURS", 3)
    _, tried = choose(source, 40_000)
    assert len(tried[-1].scores) == 3 and tried[0].localized == 1


# --- merging


def test_merged_maps_hold_both_places(here):
    p, source = here
    other = place(seed=5, landmarks=800, images=6, offset=(1100.0, -2000.0, 50.0))
    second = replace(other.source(), names=tuple(f"b{i}.jpg" for i in range(6)))
    merged = merge([source, second], ["a", "b"])
    m = to_map(full_sections(merged))
    m.check_all()
    assert m.image_count == 18 and m.landmark_count == len(source.positions) + 800
    assert max(errors(p, m)) < 0.05
    pose = other.poses[2]
    r = localize_features(m, other.features(pose, 0.5), CAMERA)
    assert pose_error(r.pose, pose)[0] < 0.05
    assert len(content_of(m).keypoints.observed) == len(merged.landmarks)


def test_maps_that_do_not_belong_together_are_not_merged(here, packer):
    _, source = here
    with pytest.raises(InputError, match=r"000\.jpg is in two"):
        merge([source, source], ["a", "b"])
    strange = replace(source, networks=replace(source.networks, weights_hash="1" * 32))
    with pytest.raises(MismatchError, match="a is of the weights 0000"):
        merge([source, strange], ["a", "b"])
    packed = content_of(to_map(packer.pack(Settings(CodecName.PQ, 32, 8, 1, 16), 500)))
    with pytest.raises(InputError, match="b is packed"):
        merge([source, packed], ["a", "b"])


def test_places_too_small_to_leave_an_image_out_are_packed_unjudged():
    p = place(images=2, landmarks=300)
    sections, tried = choose(p.source(), 15_000)
    assert tried[0].scores is None and size_of(sections) <= 15_000
    with pytest.raises(InputError, match="2 images are too few"):
        curve(p.source())
