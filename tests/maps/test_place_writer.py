"""A folder of maps and their index."""

from dataclasses import replace

import numpy as np
import pytest

from hfnet_edge.errors import InputError, MapFormatError, MismatchError
from hfnet_edge.map.codecs import CodecName
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.place_index import INDEX, read_tiles
from hfnet_maps.pack.packer import Packer
from hfnet_maps.pack.settings import Settings
from hfnet_maps.pack.writer import built_sections, write_map
from hfnet_maps.tiles.writer import Tile, index_place, write_place
from synthetic import place


def source(seed, prefix):
    built = place(seed).source()
    return replace(built, names=tuple(f"{prefix}/{name}" for name in built.names))


def tiles(*prefixes, core=slice(2, None)):
    """Maps of 12 images each, the first two halo."""
    for seed, prefix in enumerate(prefixes):
        built = source(seed, prefix)
        yield Tile(built_sections(built), built.names[core])


def test_a_place_is_written_and_read(tmp_path):
    size = write_place(tmp_path / "place", tiles("a", "b", "c"), representatives=4)
    files = sorted((tmp_path / "place").iterdir())
    assert size == sum(f.stat().st_size for f in files) and len(files) == 4
    index = LocalizationMap.open(tmp_path / "place" / INDEX)
    entries = read_tiles(index)
    index.check_all()
    assert index.landmark_count == 0 and index.image_count == 12 and index.description.weightsHash == "0" * 32
    for entry, prefix in zip(entries, "abc", strict=True):
        tile = LocalizationMap.open(tmp_path / "place" / entry.name)
        assert (entry.images, entry.core, entry.bytes) == (12, 10, len(tile.file.data))
        for row in entry.representatives:
            name = index.image_names[row]
            number = tile.image_names.index(name)
            assert name.startswith(prefix) and number >= 2
            assert np.array_equal(index.image_poses[row], tile.image_poses[number])
            assert np.array_equal(index.global_descriptors[row], tile.global_descriptors[number])
        centers = tile.views[0][2:] + tile.origin
        assert np.allclose(entry.low, centers.min(axis=0)) and np.allclose(entry.high, centers.max(axis=0))


def test_what_is_left_of_an_older_place_goes_last(tmp_path):
    write_place(tmp_path, tiles("a", "b"))
    old = {f.name for f in tmp_path.iterdir()}
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "other.hfmap").write_bytes((tmp_path / INDEX).read_bytes())

    def stopped():
        yield from tiles("c")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_place(tmp_path, stopped())
    entries = read_tiles(LocalizationMap.open(tmp_path / INDEX))
    assert {e.name for e in entries} | {INDEX} == old
    for entry in entries:
        LocalizationMap.open(tmp_path / entry.name).check_all()
    write_place(tmp_path, tiles("a", "d"))
    entries = read_tiles(LocalizationMap.open(tmp_path / INDEX))
    assert {f.name for f in tmp_path.iterdir()} == {e.name for e in entries} | {INDEX, "notes.txt", "other.hfmap"}
    assert entries[0].name in old


def test_tiles_that_others_have_written(tmp_path):
    write_place(tmp_path / "one", tiles("a", "b"))
    (tmp_path / "two").mkdir()
    files = []
    for tile, name in zip(tiles("a", "b"), ("x.hfmap", "y.hfmap"), strict=True):
        write_map(tile.sections, tmp_path / "two" / name)
        files.append((tmp_path / "two" / name, tile.core))
    index_place(tmp_path / "two", files)
    one, two = ({f.name: f.read_bytes() for f in (tmp_path / which).iterdir()} for which in ("one", "two"))
    assert one == two


def test_a_packed_tile_is_shown_in_the_networks_own_dimensions(tmp_path):
    built = source(0, "a")
    packer = Packer(built)
    write_place(tmp_path, [Tile(packer.pack(Settings(CodecName.INT8, 32, 0, 1, 8), 400), built.names)])
    index = LocalizationMap.open(tmp_path / INDEX)
    assert index.description.extractorGlobalDim == index.description.globalDim == 16
    tile = LocalizationMap.open(tmp_path / read_tiles(index)[0].name)
    ours = index.global_descriptors.astype(int) @ index.global_descriptors[3].astype(int)
    own = tile.global_descriptors.astype(int) @ tile.global_descriptors[3].astype(int)
    assert np.abs(ours - own).max() < 0.05 * 127 * 127


def test_what_makes_no_place(tmp_path):
    a, b = tiles("a", "b")
    with pytest.raises(InputError, match="no tile"):
        write_place(tmp_path, [])
    with pytest.raises(InputError, match="empty or repeats"):
        write_place(tmp_path, [replace(a, core=())])
    with pytest.raises(InputError, match=r"b/002\.jpg is not in the tile"):
        write_place(tmp_path, [replace(a, core=b.core)])
    with pytest.raises(InputError, match=r"a/002\.jpg is the core of two tiles"):
        write_place(tmp_path, [a, replace(a, core=a.core[:1])])
    built = source(1, "b")
    other = replace(built, networks=replace(built.networks, weights_hash="1" * 32))
    with pytest.raises(MismatchError, match=r"of the weights 0000.*another of 1111"):
        write_place(tmp_path, [a, Tile(built_sections(other), built.names)])
    with pytest.raises(MapFormatError, match="there is no map"):
        index_place(tmp_path, [(tmp_path / "none.hfmap", ("a",))])
    assert not (tmp_path / INDEX).exists()
    with pytest.raises(MismatchError, match="is a map, and no index"):
        read_tiles(place().map())
