"""A map that has grown is packed onto the packed map that devices have: what they have stays, byte for byte."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from hfnet_edge.errors import InputError, MismatchError
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.codecs import CodecName
from hfnet_edge.map.container import Section
from hfnet_edge.map.delta import make_delta
from hfnet_edge.map.map_file import TILE_SIZE
from hfnet_edge.networks.description import PATCH_ROLE
from hfnet_maps.cli import main
from hfnet_maps.content import content_of, read_content
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.onto import pack_onto
from hfnet_maps.pack.packer import Packer
from hfnet_maps.pack.selection import rank
from hfnet_maps.pack.settings import Settings
from hfnet_maps.pack.writer import full_sections, size_of, to_map, write_map
from synthetic import CAMERA, place

IMAGES, NEW, KEPT = 12, 2, 700
CODECS = {
    "pq": Settings(CodecName.PQ, 32, 8, 1, 8),
    "binary": Settings(CodecName.BINARY, 32, 0, 4, 16),
    "int8": Settings(CodecName.INT8, 24, 0, 4, 16),
}


@pytest.fixture(scope="module")
def grown():
    """A place, its map, and the map before its last images came. The place is 1,500 landmarks."""
    p = place(landmarks=1500, images=IMAGES)
    whole = p.source(noise=0.5, hypercolumns=8)
    return p, whole, whole.without_images(np.arange(IMAGES - NEW, IMAGES))


def packed(source, settings=CODECS["pq"], count=KEPT):
    return to_map(Packer(source).pack(settings, count))


def data(map_):
    return bytes(map_.file.data)


@pytest.mark.parametrize("codec", CODECS)
def test_what_devices_have_stays(grown, codec):
    p, whole, before = grown
    base = packed(before, CODECS[codec])
    budget = int(1.4 * len(data(base)))
    found = pack_onto(whole, base, budget)
    map_ = to_map(found.sections)
    assert found.kept == KEPT and found.added > 50 and map_.landmark_count == KEPT + found.added
    assert 0.97 * budget < len(data(map_)) <= budget or found.added == len(whole.positions) - KEPT
    a, b = content_of(base), content_of(map_)
    for section in (Section.PROJECTION, Section.THRESHOLDS, Section.CODEBOOK, Section.GLOBAL_PROJECTION):
        if section in base.file.sections:
            assert bytes(base.file.bytes(section)) == bytes(map_.file.bytes(section))
    for part in ("codes", "described", "global_descriptors"):
        old, new = getattr(a, part), getattr(b, part)
        np.testing.assert_array_equal(new[: len(old)], old)
    np.testing.assert_array_equal(b.hypercolumns.codes[:KEPT], a.hypercolumns.codes)
    full = KEPT // TILE_SIZE * TILE_SIZE
    assert b.positions[:full].tobytes() == a.positions[:full].tobytes()
    mine = (b.landmarks < KEPT) & (b.images < IMAGES - NEW)
    np.testing.assert_array_equal(b.landmarks[mine], a.landmarks)
    np.testing.assert_array_equal(b.images[mine], a.images)
    assert b.names == whole.names and ((b.landmarks < KEPT) & (b.images >= IMAGES - NEW)).sum() > 100
    growth = len(data(map_)) - len(data(base))
    assert len(make_delta(data(base), data(map_))) < 1.25 * growth + 500
    anew = packed(whole, CODECS[codec], map_.landmark_count)
    if codec != "int8":  # of which little is fitted
        assert len(make_delta(data(base), data(anew))) > 2 * growth
    # A packed landmark is the source's: new images observe it where it is.
    for image in range(IMAGES - NEW, IMAGES):
        seen = b.landmarks[(b.images == image) & (b.landmarks < KEPT)]
        xy = CAMERA.project(p.poses[image].transform(b.positions[seen]))
        assert (xy > -1).all() and (xy < (CAMERA.width + 1, CAMERA.height + 1)).all()
    features = p.features(p.poses[-1])
    errors = [pose_error(localize_features(m, features, CAMERA).pose, p.poses[-1])[0] for m in (map_, anew)]
    assert errors[0] < max(2 * errors[1], 0.02)


def test_onto_what_was_packed_onto(grown):
    _, whole, before = grown
    first = packed(before, count=400)
    once = to_map(pack_onto(whole, first, int(1.2 * len(data(first)))).sections)
    found = pack_onto(whole, once, int(1.5 * len(data(first))))
    twice = to_map(found.sections)
    assert found.kept == once.landmark_count > 400 and found.added > 50
    np.testing.assert_array_equal(twice.codes[: len(once.codes)], once.codes)
    assert len(make_delta(data(once), data(twice))) < 0.5 * len(data(twice))


def test_kept_landmarks_leave_their_cells_to_others(grown):
    _, whole, _ = grown
    order = rank(whole)
    rest = rank(whole, order[:300])
    assert set(rest) == set(order[300:]) and len(rest) == len(order) - 300
    assert len(set(rest[:200]) & set(order[300:500])) > 150, "it goes on as it would have"
    np.testing.assert_array_equal(rank(whole, np.zeros(0, np.int64)), order)


def test_what_cannot_be_packed_onto_another_is_refused_by_name(grown):
    _, whole, before = grown
    base = packed(before)
    budget = 2 * len(data(base))
    with pytest.raises(InputError, match=r"budget of 1000 bytes is too small.*give a larger"):
        pack_onto(whole, base, 1000)
    with pytest.raises(InputError, match="the source is packed"):
        pack_onto(content_of(base), base, budget)
    with pytest.raises(InputError, match="is not packed; give --onto the packed map"):
        pack_onto(whole, to_map(full_sections(before)), budget)
    with pytest.raises(InputError, match="its images are not the source's first ones"):
        pack_onto(before, packed(whole), budget)
    with pytest.raises(InputError, match="its landmarks are others"):
        pack_onto(replace(whole, positions=whole.positions + 1.0), base, budget)
    for part in ("weights_hash", "global_weights_hash"):
        other = replace(whole, networks=replace(whole.networks, **{part: "1" * 32}))
        with pytest.raises(MismatchError, match=f"other networks than the source: {part}.*{'1' * 32}"):
            pack_onto(other, base, budget)
    with pytest.raises(MismatchError, match="has hypercolumns, and the source has none"):
        pack_onto(replace(whole, hypercolumns=None), base, budget)
    of_patches = replace(before, networks=replace(before.networks, local_role=PATCH_ROLE))
    packer = Packer(of_patches)
    trees = to_map({**packer.pack(CODECS["int8"], KEPT), **packer.trees(KEPT)})
    with pytest.raises(InputError, match="has random trees, which grow anew"):
        pack_onto(replace(whole, networks=of_patches.networks), trees, budget)


def test_the_command(grown, tmp_path):
    _, whole, before = grown
    source, old, new = (tmp_path / name for name in ("scene2.hfmap", "old.hfmap", "new.hfmap"))
    write_map(full_sections(whole), source)
    write_map(Packer(before).pack(CODECS["pq"], KEPT), old)

    def run(*arguments):
        return CliRunner().invoke(main, [str(a) for a in arguments])

    result = run("pack", source, "--onto", old, "--budget", "60kB", "-o", new)
    assert result.exit_code == 0, result.output
    assert f"{KEPT} landmarks of {old} as they are" in result.stdout
    assert f"next: hfnet-map diff {old} {new} -o {tmp_path / 'new.hfdelta'}" in result.stdout
    assert size_of(full_sections(read_content(new))) == new.stat().st_size <= 60_000
    assert run(*result.stdout.split("next: hfnet-map ")[1].split()).exit_code == 0
    assert (tmp_path / "new.hfdelta").stat().st_size < 0.7 * len(zlib.compress(new.read_bytes()))
    for options in (("--codec", "pq"), ("--curve", tmp_path / "c.png")):
        refused = run("pack", source, "--onto", old, "--budget", "60kB", *options, "-o", tmp_path / "x.hfmap")
        assert refused.exit_code == 2 and "without --codec" in refused.stderr
    same = run("pack", source, "--onto", old, "--budget", "60kB", "-o", old)
    assert same.exit_code == 2 and "names the same file" in same.stderr
