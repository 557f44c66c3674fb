"""`hfnet-map tile`, and what the other commands do with a folder of tiles."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_map_cli import contents, refused, rows, run

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from range_server import RangeServer

from hfnet_edge.cli import app as localize_app
from hfnet_edge.errors import MismatchError
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.place_index import INDEX
from hfnet_edge.map.tiled_map import TiledMap
from hfnet_edge.shell.lists import read_names
from hfnet_maps.cli import main
from hfnet_maps.content import BuiltMap, PackedMap, read_content
from hfnet_maps.pack.writer import full_sections, write_map
from hfnet_maps.tiles.cut import covisibility, take_images
from hfnet_parity.run import run_on
from synthetic import place, toy_source


def test_covisibility_is_counted():
    pairs, weights = covisibility(toy_source([[0, 1, 2], [1, 2], [], [2, 3], [3]]))
    assert dict(zip(map(tuple, pairs.tolist()), weights.tolist(), strict=True)) == {
        (0, 1): 2, (0, 3): 1, (1, 3): 1, (3, 4): 1,
    }  # fmt: skip


def test_a_tile_is_the_map_without_what_its_core_does_not_see():
    """Every keypoint stays, with its landmark where the core sees it."""
    rng = np.random.default_rng(0)
    built = place(images=6, landmarks=300).source()
    seen = rng.random(len(built.landmarks)) < 0.3
    k = built.keypoints
    kept = np.unique(built.landmarks[seen])
    number = np.full(300, -1)
    number[kept] = np.arange(len(kept))
    built = replace(
        built,
        positions=built.positions[kept],
        landmarks=number[built.landmarks[seen]],
        images=built.images[seen],
        descriptors=built.descriptors[seen],
        keypoints=replace(k, observed=k.observed[seen]),
    )
    images, core = np.array([1, 2, 5]), np.array([2, 5])
    tile = take_images(built, images, core)
    assert tile.names == tuple(built.names[i] for i in images)
    of_core = set(built.landmarks[np.isin(built.images, core)].tolist())
    assert len(tile.positions) == len(of_core)
    for new, old in enumerate(images):
        a, b = built.features(int(old)), tile.features(new)
        assert np.array_equal(a.global_descriptor, b.global_descriptor)
        order_a, order_b = (np.lexsort(f.keypoints.T) for f in (a, b))
        assert np.array_equal(a.keypoints[order_a], b.keypoints[order_b])
        assert np.array_equal(a.descriptors[order_a], b.descriptors[order_b])
        expected = {
            tuple(built.positions[landmark]) for landmark in built.landmarks[built.observed(int(old))].tolist()
            if landmark in of_core
        }  # fmt: skip
        assert {tuple(tile.positions[i]) for i in tile.landmarks[tile.observed(new)]} == expected


@pytest.fixture
def scene(tmp_path):
    """A built map of 12 images that all see the same."""
    path = tmp_path / "scene.hfmap"
    write_map(full_sections(place(landmarks=400).source()), path)
    return path


def test_cut_packed_looked_into_and_verified(tmp_path, scene):
    (tmp_path / "scene.cameras.txt").write_text("PINHOLE 640 480 500 505 321 239\n")
    result = run(main, "tile", scene, "--images", 4, "-o", tmp_path / "town.tiles")
    assert result.exit_code == 0, result.output
    assert f"wrote {tmp_path / 'town.tiles'}" in result.stdout and "next: hfnet-map pack" in result.stdout
    assert (tmp_path / "town.cameras.txt").is_file()
    built = TiledMap(tmp_path / "town.tiles")
    assert [tile.core for tile in built.tiles] == [4, 4, 4] and all(tile.images == 6 for tile in built.tiles)
    assert all(isinstance(read_content(tmp_path / "town.tiles" / tile.name), BuiltMap) for tile in built.tiles)

    result = run(main, "pack", tmp_path / "town.tiles", "--budget", "20kB", "-o", tmp_path / "small.tiles")
    assert result.exit_code == 0, result.output
    packed = TiledMap(tmp_path / "small.tiles")
    assert all(tile.bytes <= 20_000 for tile in packed.tiles)
    assert all(isinstance(read_content(tmp_path / "small.tiles" / tile.name), PackedMap) for tile in packed.tiles)
    for one, other in zip(built.tiles, packed.tiles, strict=True):
        assert (one.core, one.images, one.representatives) == (other.core, other.images, other.representatives)
        assert np.array_equal(one.low, other.low)
    assert np.array_equal(built.index.global_descriptors, packed.index.global_descriptors)

    result = run(main, "verify", tmp_path / "small.tiles")
    assert result.exit_code == 0 and "is whole: 3 tiles, 12 images" in result.stdout
    result = run(main, "inspect", tmp_path / "small.tiles")
    assert result.exit_code == 0 and len(rows(result.stdout)) >= 3 and "next: hfnet-localize --map" in result.stdout

    tile = tmp_path / "small.tiles" / packed.tiles[1].name
    content = bytearray(tile.read_bytes())
    content[-1] ^= 1
    tile.write_bytes(content)
    assert run(main, "verify", tmp_path / "small.tiles").exit_code == 2


def test_a_packed_map_is_cut_too(tmp_path, scene):
    packed = tmp_path / "packed.hfmap"
    assert run(main, "pack", scene, "--budget", "40kB", "-o", packed).exit_code == 0
    assert run(main, "tile", packed, "--images", 5, "-o", tmp_path / "t").exit_code == 0
    whole, place_ = LocalizationMap.open(packed), TiledMap(tmp_path / "t")
    assert len(place_.tiles) == 3
    for number in range(3):
        tile = place_.tile(number)
        assert tile.codec.name == whole.codec.name and tile.description.globalDim == whole.description.globalDim
        assert tile.calibration == whole.calibration


def test_what_is_refused_leaves_everything_as_it_was(tmp_path, scene):
    before = contents(tmp_path)
    assert refused(run(main, "tile", tmp_path / "no.hfmap", "-o", tmp_path / "t"), "there is no map")
    assert refused(run(main, "tile", scene, "-o", tmp_path), "the inputs are there")
    assert refused(run(main, "tile", scene, "-o", scene), "it is no folder")
    assert refused(run(main, "pack", tmp_path, "--budget", "1MB", "-o", tmp_path / "t"), INDEX)
    assert contents(tmp_path) == before
    assert run(main, "tile", scene, "--images", 4, "-o", tmp_path / "t").exit_code == 0
    before = contents(tmp_path)
    arguments = ("pack", tmp_path / "t", "--budget", "1MB")
    assert refused(run(main, *arguments, "-o", tmp_path / "t"), "the inputs are there")
    assert refused(run(main, *arguments, "--curve", "c.png", "-o", tmp_path / "u"), "--curve")
    assert refused(run(main, "pack", tmp_path / "t", "--budget", "100B", "-o", tmp_path / "u"), "too small")
    assert not (tmp_path / "u" / INDEX).exists()
    over = tmp_path / "t" / INDEX
    assert refused(run(main, "inspect", tmp_path / "t", "--picture", over), "the same file")
    (tmp_path / "t" / INDEX).write_bytes(b"HFMAP")
    assert refused(run(main, "verify", tmp_path / "t"), "too short for a map")


def test_photos_are_localized_in_tiles_and_over_http(kit, tmp_path):
    """As in the map that was cut."""
    assert run(main, "tile", kit.map, "--images", 10, "-o", tmp_path / "town").exit_code == 0
    town = kit.root / "place"
    given = ("--model", kit.int8, "--images", town / "images", "--queries", town / "queries_with_intrinsics.txt")

    def poses(where, *more):
        out = tmp_path / "poses.txt"
        result = run(localize_app, "--map", where, *given, *more, "-o", out, "--report", tmp_path / "r.jsonl")
        assert result.exit_code == 0, result.output
        assert '"tile": ' in (tmp_path / "r.jsonl").read_text() or where == kit.map
        return out.read_text()

    tiles = poses(tmp_path / "town")
    with RangeServer(tmp_path / "town") as server:
        assert poses(server.url, "--cache", tmp_path / "cache") == tiles
        with_cache = server.sent
        server.reset()
        assert poses(server.url, "--cache", tmp_path / "cache") == tiles and server.sent < 0.1 * with_cache
    one = poses(kit.map)
    assert [line.split()[0] for line in tiles.splitlines()] == [line.split()[0] for line in one.splitlines()]
    for a, b in zip(tiles.splitlines(), one.splitlines(), strict=True):
        assert np.abs(np.array(a.split()[1:], float) - np.array(b.split()[1:], float)).max() < 0.05
    assert len(read_names(town / "map.txt")) == sum(tile.core for tile in TiledMap(tmp_path / "town").tiles)
    refused(run(localize_app, "--map", server.url, *given, "-o", tmp_path / "p.txt"), "cannot fetch", "check the URL")
    refused(run(localize_app, "--map", kit.map, "--cache", tmp_path, *given, "-o", tmp_path / "p.txt"), "--cache")


def test_what_records_stages_wants_one_map(kit, tmp_path):
    assert run(main, "tile", kit.map, "--images", 10, "-o", tmp_path / "town").exit_code == 0
    with pytest.raises(MismatchError, match="a parity run works in one map"):
        run_on(None, kit.bundle, [kit.int8], tmp_path / "town")
