"""A place in tiles: queries find the tiles that they need, as in one map; and what is missing is named."""

import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from range_server import RangeServer
from test_localizer import NoNetwork
from test_prior import TRUTH, twins
from test_prior import place as circle

from hfnet_edge.errors import HFNetEdgeError, InputError, MapFormatError, MismatchError, RemoteError
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.localizer import Localizer, localize_features
from hfnet_edge.map import tiled_map
from hfnet_edge.map.container import Section
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.place_index import INDEX, ROW, read_tiles
from hfnet_edge.map.tiled_map import OPEN, TiledMap, open_place
from hfnet_edge.methods.method import LocalizationConfig, Query
from hfnet_edge.prior import Prior
from hfnet_edge.result import Status
from hfnet_edge.session import Session
from hfnet_maps.pack.writer import full_sections, to_map, write_map
from hfnet_maps.tiles.cut import cut
from hfnet_maps.tiles.writer import write_place
from synthetic import CAMERA, Place, looking_at

IMAGES, STEP = 60, 2.0  # along a street


def street(seed: int = 0) -> Place:
    """Cameras along x that look at a facade; those near each other look alike."""
    rng = np.random.default_rng(seed)
    length = IMAGES * STEP
    landmarks = np.column_stack([rng.uniform(-8, length + 8, 2400), rng.uniform(9, 12, 2400), rng.uniform(-4, 4, 2400)])
    x = np.arange(IMAGES) * STEP
    waves = np.cos(x[:, None] * rng.normal(0, 0.15, 16) + rng.uniform(0, 7, 16))
    poses = [looking_at(np.array([at, 0, 0.0]), np.array([at, 10, 0.0])) for at in x]
    seen = [CAMERA.project(pose.transform(landmarks)) for pose in poses]
    landmarks = landmarks[np.any([((xy > 0) & (xy < (640, 480))).all(axis=1) for xy in seen], axis=0)]
    descriptors = rng.normal(size=(len(landmarks), 32))
    return Place(landmarks, descriptors / np.linalg.norm(descriptors, axis=1)[:, None], poses, quantize(waves), rng)


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """The street as one map, its folder of tiles of about ten images, and queries with their true poses."""
    p, folder = street(), tmp_path_factory.mktemp("town") / "place"
    source = p.source()
    write_place(folder, cut(source, 10))
    truths = [looking_at(np.array([x, 0.4, 0.1]), np.array([x + 0.5, 10, 0.3])) for x in np.linspace(0.5, 117, 14)]
    return to_map(full_sections(source)), folder, [(p.features(pose, outliers=50), pose) for pose in truths]


def same(a, b):
    return np.array_equal(a.pose.quaternion, b.pose.quaternion) and np.array_equal(
        a.pose.translation, b.pose.translation
    )


def test_queries_are_found_in_tiles_as_in_the_map_that_was_cut(town):
    whole, folder, queries = town
    place = TiledMap(folder)
    assert len(place.tiles) >= 5 and sum(tile.core for tile in place.tiles) == IMAGES
    used = set()
    for features, truth in queries:
        one, tiled = (localize_features(m, features, CAMERA) for m in (whole, place))
        assert one.status is tiled.status is Status.LOCALIZED
        assert np.linalg.norm(tiled.pose.center - truth.center) < 0.03
        assert np.linalg.norm(tiled.pose.center - one.pose.center) < 0.01
        assert tiled.inliers > 0.9 * one.inliers  # its tile holds all that is seen there
        used.add(tiled.tile)
        near = {place.tile(tiled.tile).image_names[i] for i in tiled.prior_frames[:1]}
        assert near == {whole.image_names[i] for i in one.prior_frames[:1]}
    assert len(used) >= 5


def test_over_http_poses_are_the_same_and_what_was_fetched_stays(town, tmp_path):
    _, folder, queries = town
    here = TiledMap(folder)
    with RangeServer(folder) as server:

        def sent(cache):
            there = TiledMap(server.url, cache)
            server.reset()
            for features, _ in queries:
                a, b = (localize_features(m, features, CAMERA) for m in (here, there))
                assert same(a, b) and a.tile == b.tile
            return server.sent

        total = sum(f.stat().st_size for f in folder.iterdir())
        assert 0 < sent(None) < total
        assert 0 < sent(tmp_path / "cache") < total
        assert sent(tmp_path / "cache") == 0


def test_where_two_tiles_look_the_same_neither_is_given(tmp_path):
    """What the whole map refuses the tiles refuse; a prior opens the right one."""
    map_, source = twins()
    write_place(tmp_path, cut(source, 24))
    place, features = TiledMap(tmp_path), circle(images=24).features(TRUTH)
    assert len(place.tiles) == 2
    assert localize_features(map_, features, CAMERA).status is Status.AMBIGUOUS
    assert localize_features(place, features, CAMERA).status is Status.AMBIGUOUS
    for part, x in (("a", 0.0), ("b", 500.0)):
        for prior in (Prior(tuple(TRUTH.center + np.array([x + 2, -1, 0])), 5.0), Prior(images=(f"{part}/*",))):
            r = localize_features(place, features, CAMERA, prior=prior)
            assert r.status is Status.LOCALIZED and not r.notes
            assert np.linalg.norm(r.pose.center - TRUTH.center - [x, 0, 0]) < 0.1
            assert {place.tile(r.tile).image_names[i][0] for i in r.prior_frames} == {part}
    with pytest.raises(InputError, match=r"no reference image of .* is called c"):
        localize_features(place, features, CAMERA, prior=Prior(images=("c",)))


def test_a_wrong_prior_is_dropped(town):
    _, folder, queries = town
    features, truth = queries[2]
    place = TiledMap(folder)
    far = Prior(position=tuple(truth.center + np.array([90.0, 0, 0])), radius=3.0)
    r = localize_features(place, features, CAMERA, prior=far)
    assert r.status is Status.LOCALIZED and "the prior was dropped" in r.notes[0]
    assert np.linalg.norm(r.pose.center - truth.center) < 0.03


def test_few_tiles_stay_open(town, monkeypatch):
    _, folder, queries = town
    monkeypatch.setattr(tiled_map, "OPEN", 2)
    place = TiledMap(folder)
    for features, truth in queries:
        assert np.linalg.norm(localize_features(place, features, CAMERA).pose.center - truth.center) < 0.03
        assert len(place._open) <= 2
    assert OPEN > 2


def test_threads_share_a_place(town):
    _, folder, queries = town
    with RangeServer(folder) as server:
        place, found = TiledMap(server.url), {}

        def ask(start):
            for i in range(start, len(queries), 2):
                found[i] = localize_features(place, queries[i][0], CAMERA)

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    alone = TiledMap(folder)
    assert all(same(found[i], localize_features(alone, f, CAMERA)) for i, (f, _) in enumerate(queries))


@pytest.mark.parametrize("how", ["missing", "another version", "cut", "damaged"])
@pytest.mark.parametrize("by_url", [False, True])
def test_a_tile_that_is_not_the_one_of_the_index(town, tmp_path, how, by_url):
    """Its queries fail with its name; those of other tiles do not, and with the tile back all is well."""
    _, folder, queries = town
    shutil.copytree(folder, tmp_path / "place")
    with RangeServer(tmp_path / "place") as server:
        where = server.url if by_url else tmp_path / "place"
        place = TiledMap(where)
        tile = localize_features(place, queries[0][0], CAMERA).tile
        path, other = (tmp_path / "place" / place.tiles[i].name for i in (tile, tile - 1))
        content = path.read_bytes()
        changed = {"another version": other.read_bytes(), "cut": content[:-100]}.get(how, bytearray(content))
        if how == "damaged":
            changed[2000:] = bytes(len(content) - 2000)
        path.unlink() if how == "missing" else path.write_bytes(changed)
        place = TiledMap(where)
        with pytest.raises(MapFormatError, match=path.name) as e:
            localize_features(place, queries[0][0], CAMERA)
        assert e.value.remedy
        assert localize_features(place, queries[-1][0], CAMERA).pose is not None
        path.write_bytes(content)
        assert localize_features(place, queries[0][0], CAMERA).pose is not None


def test_a_place_that_is_written_anew_under_a_reader(town, tmp_path):
    """The tiles that are open stay; others are gone, and the index is read anew when the place is opened again."""
    _, folder, queries = town
    shutil.copytree(folder, tmp_path / "place")
    place = TiledMap(tmp_path / "place")
    before = localize_features(place, queries[0][0], CAMERA)
    write_place(tmp_path / "place", cut(street(1).source(), 10))
    assert same(localize_features(place, queries[0][0], CAMERA), before)
    with pytest.raises(MapFormatError, match="is missing, which the index names"):
        localize_features(place, queries[-1][0], CAMERA)
    assert localize_features(TiledMap(tmp_path / "place"), queries[0][0], CAMERA).pose is None


def test_a_server_that_goes_away(town):
    _, folder, queries = town
    with RangeServer(folder) as server:
        place = TiledMap(server.url)
        before = localize_features(place, queries[0][0], CAMERA)
    with pytest.raises(RemoteError, match="cannot fetch"):
        localize_features(place, queries[-1][0], CAMERA)
    assert same(localize_features(place, queries[0][0], CAMERA), before)  # all of it is here
    port = int(server.url.rsplit(":", 1)[1])
    with RangeServer(folder, port=port):
        assert localize_features(place, queries[-1][0], CAMERA).pose is not None


@pytest.mark.parametrize("odometry", [True, False])
def test_a_session_walks_through_tiles(town, odometry):
    """Only the first frame is sought everywhere; the others are tracked, in the tile of the nearest view."""
    _, folder, _ = town
    p, localizer = street(), Localizer(folder, NoNetwork())
    session, asked = Session(localizer), []
    tile = localizer.place.tile
    localizer.place.tile = lambda number: asked.append(number) or tile(number)
    for i, x in enumerate(np.arange(3.0, 110.0, 3.0 if odometry else 0.8)):
        truth = looking_at(np.array([x, 0.2, 0.0]), np.array([x, 10, 0.1]))
        features = p.features(truth, outliers=50)
        r = session.localize_query(Query(1.0, features), CAMERA, truth.inverse if odometry else None)
        assert r.pose is not None and r.tracked == (i > 0)
        assert np.linalg.norm(r.pose.center - truth.center) < 0.05
    assert len(set(asked)) >= 5 and len(np.flatnonzero(np.diff(asked))) < 12


def test_what_a_place_is_not_for(town):
    _, folder, _ = town
    localizer = Localizer(folder, NoNetwork())
    assert localizer.place is not None and localizer.map.landmark_count == 0
    with pytest.raises(MismatchError, match="works in one map"):
        localizer.localize_rig([None])
    with pytest.raises(MismatchError, match="does not search in tiles"):
        Localizer(folder, NoNetwork(), config=LocalizationConfig("retrieval-pose"))
    other = replace(NoNetwork().description, weights_hash="1" * 32)
    with RangeServer(folder) as server, pytest.raises(MismatchError, match="was built with weights 0000"):
        try:
            Localizer(server.url, NoNetwork(other))
        finally:
            assert server.requests <= 2  # of the index


def test_a_map_or_a_place_is_opened_by_what_is_there(town, tmp_path):
    _, folder, _ = town
    write_map(full_sections(circle().source()), tmp_path / "scene.hfmap")
    with RangeServer(folder) as server:
        for where in (folder, str(folder), folder / INDEX, server.url, f"{server.url}/", f"{server.url}/{INDEX}"):
            assert isinstance(open_place(where), TiledMap)
    shutil.copy(tmp_path / "scene.hfmap", tmp_path / INDEX)
    for where in (tmp_path / "scene.hfmap", tmp_path / INDEX):
        assert isinstance(open_place(where), LocalizationMap)
    with pytest.raises(MismatchError, match="is a map, and no index"):
        open_place(tmp_path)
    with pytest.raises(MapFormatError, match="there is no map"):
        open_place(tmp_path / "none.tiles")


def changed_index(folder, change):
    """The index with other rows, its checksums right."""
    index = LocalizationMap.open(folder / INDEX)
    sections = {
        kind: index.file.bytes(kind) for kind in Section if kind in index.file.sections and kind != Section.CHECKSUMS
    }
    rows = np.frombuffer(sections[Section.PLACE_TILES], ROW).copy()
    sections[Section.PLACE_TILES] = change(rows)
    return to_map(sections)


HOSTILE = {
    "no row": lambda rows: rows[:0],
    "half a row": lambda rows: rows.tobytes()[:-1],
    "first is not 0": lambda rows: with_field(rows, "first", 0, 1),
    "first does not rise": lambda rows: with_field(rows, "first", 2, 0),
    "first past the last": lambda rows: with_field(rows, "first", -1, 2**32 - 1),
    "a box of no size": lambda rows: with_field(rows, "low", 1, np.inf),
    "a box inside out": lambda rows: with_field(rows, "high", 1, -1e9),
    "a box of NaN": lambda rows: with_field(rows, "high", 1, np.nan),
    "fewer core than shown": lambda rows: with_field(rows, "core", 0, 0),
    "fewer images than core": lambda rows: with_field(rows, "images", 0, 1),
    "bytes of no file": lambda rows: with_field(rows, "bytes", 0, 2**63),
    "a tile twice": lambda rows: with_field(rows, "sha256", 1, rows["sha256"][0]),
}


def with_field(rows, name, row, value):
    rows[name][row] = value
    return rows


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_index_is_refused(town, what):
    _, folder, _ = town
    index = changed_index(folder, HOSTILE[what])
    with pytest.raises(MapFormatError, match="PLACE_TILES"):
        read_tiles(index)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_index_is_read_or_refused(town, tmp_path, data):
    """Bytes of it are changed, cut off, or its rows are anything, with right checksums: it is refused with an error of
    ours, or its tiles are asked for by names and sizes that are possible, and refused."""
    _, folder, queries = town
    if data.draw(st.booleans()):
        content = bytearray((folder / INDEX).read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    else:

        def anything(rows):
            raw = bytearray(rows.tobytes())
            for _ in range(data.draw(st.integers(1, 8))):
                raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
            return bytes(raw)

        content = bytes(changed_index(folder, anything).file.data)
    (tmp_path / INDEX).write_bytes(content)
    for entry in read_tiles(LocalizationMap.open(folder / INDEX)):
        if not (tmp_path / entry.name).exists():
            (tmp_path / entry.name).symlink_to(folder / entry.name)
    try:
        place = TiledMap(tmp_path)
        found = localize_features(place, queries[0][0], CAMERA)
    except HFNetEdgeError:
        return
    assert found.pose is None or np.linalg.norm(found.pose.center - queries[0][1].center) < 0.03
