"""A build from photos that is stopped goes on where it was, to the same map; what was kept is in hloc's layout."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import combinations

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from hfnet_edge.networks.by_role import Networks
from hfnet_edge.shell.console import silent
from hfnet_maps.build import builder, workers
from hfnet_maps.build.crew import ALONE, crew
from hfnet_maps.build.photos import find_photos
from hfnet_maps.build.work_store import (
    FEATURES,
    GLOBAL,
    MATCHES,
    PARTS,
    WorkStore,
    read_features,
    read_pairs,
    write_features,
)
from hfnet_maps.cli import main
from photo_places import FakeModel, photograph
from synthetic import place


def build(folder, model, output):
    options = ("--images", folder, "--model", model, "-o", output)
    return CliRunner().invoke(main, ["build", *map(str, options)])


class Stopped(BaseException):
    """As a kill: nobody catches it."""


def counted(monkeypatch, module, name, allowed):
    """Replaces a function by one that is stopped after so many calls; its list of calls."""
    plain, calls = getattr(module, name), []

    def stopping(*arguments):
        if len(calls) >= allowed[0]:
            raise Stopped
        calls.append(arguments)
        return plain(*arguments)

    monkeypatch.setattr(module, name, stopping)
    return calls


def test_a_stopped_build_goes_on_and_gives_the_same_map(tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    model = photograph(photos, {"a": place(5, landmarks=300, images=10)}, monkeypatch)
    monkeypatch.setattr(workers, "PHOTOS", 3)
    monkeypatch.setattr(workers, "PAIRS", 10)
    assert build(photos, model, tmp_path / "whole.hfmap").exit_code == 0
    whole = (tmp_path / "whole.hfmap").read_bytes()

    allowed = [4]
    extracted = counted(monkeypatch, builder, "extract", allowed)
    matched = counted(monkeypatch, workers, "match_descriptors", allowed)
    out, store = tmp_path / "stopped.hfmap", tmp_path / "stopped_sfm"
    for allowed[0] in (4, 8, 12, 25, 47):
        with pytest.raises(Stopped):
            result = build(photos, model, out)
            raise result.exception or AssertionError(result.output)
        assert not out.exists()
    torn = next((store / PARTS).glob("*.h5"))
    torn.write_bytes(torn.read_bytes()[:900])  # of a disk that was full
    allowed[0] = 10**6
    assert build(photos, model, out).exit_code == 0
    assert out.read_bytes() == whole
    assert len(extracted) <= 10 + 2 + 2 and len(matched) <= 45 + 3 * 9 + 10, "parts that were there are not made again"
    assert not list((store / PARTS).iterdir())
    extracted.clear(), matched.clear()
    assert build(photos, model, out).exit_code == 0 and out.read_bytes() == whole
    assert not extracted and not matched, "nothing is computed twice"

    with h5py.File(store / FEATURES) as file, h5py.File(store / GLOBAL) as looks, h5py.File(store / MATCHES) as pairs:
        assert sorted(file) == sorted(looks) == [f"a{i:02d}.png" for i in range(10)]
        one = file["a00.png"]
        count = len(one["keypoints"])
        assert one["descriptors"].shape == (32, count) and one["scores"].shape == (count,)
        assert np.linalg.norm(one["descriptors"][()], axis=0) == pytest.approx(np.ones(count), abs=0.02)
        assert looks["a03.png/global_descriptor"].shape == (16,)
        matches = pairs["a00.png/a01.png/matches0"][()]
        assert matches.shape == (count,) and matches.max() < len(file["a01.png/keypoints"]) and (matches >= 0).any()

    model.write_bytes(b"other weights")
    assert build(photos, model, out).exit_code == 0 and len(extracted) == 10, "another network finds other features"


def test_what_is_written_is_read_back_bit_by_bit(tmp_path):
    p = place(1, landmarks=200, images=2)
    store = WorkStore(tmp_path / "s")
    a = p.features(p.poses[0])
    hypercolumns = np.arange(len(a.keypoints) * 4).astype(np.int8).reshape(-1, 4)
    kept = {"k": ("sub/a.jpg", (a, hypercolumns)), "l": ("b.jpg", (p.features(p.poses[1]), None))}
    write_features(store.files, kept)
    store.look()
    for _ in range(2):
        found, dense = read_features(store.files, store.at("k"))
        for name in ("scores", "descriptors", "global_descriptor"):
            value = getattr(found, name)
            assert np.array_equal(value, getattr(a, name)) and value.dtype == getattr(a, name).dtype
        assert found.keypoints == pytest.approx(a.keypoints, abs=1e-12) and found.pixel == a.pixel
        assert np.array_equal(dense, hypercolumns) and read_features(store.files, store.at("l"))[1] is None
        store.gather(FEATURES, ["k", "l"])
    (tmp_path / "s" / GLOBAL).write_bytes(b"torn")
    store.look()
    assert "k" not in store


@pytest.fixture
def found(tmp_path, monkeypatch):
    """Six photos whose features are in a store, and the pairs of them."""
    p = place(4, landmarks=250, images=6)
    model = FakeModel(photograph(tmp_path / "photos", {"a": p}, monkeypatch))
    photos, store = find_photos(tmp_path / "photos"), WorkStore(tmp_path / "store")
    monkeypatch.setattr(workers, "PAIRS", 4)
    return workers.extract_into(store, photos, Networks(model), False, ALONE, silent)


def pairs_of(kept, crew, folder):
    """What a crew makes of all pairs, in a store of its own."""
    shutil.copytree(kept.store.files.folder, folder)
    kept = replace(kept, store=WorkStore(folder))
    keys = workers.match_into(kept, list(combinations(range(6), 2)), crew, silent)
    return read_pairs(kept.store.files, [kept.store.at(key) for key in keys])


@pytest.mark.slow
@pytest.mark.parametrize("who", [{"jobs": 2}, {"dask": "local:2"}])
def test_processes_find_the_same(found, tmp_path, who):
    alone = pairs_of(found, ALONE, tmp_path / "alone")
    with crew(**who) as others:
        theirs = pairs_of(found, others, tmp_path / "others")
    assert len(alone) == 15 and sum(geometry is not None for _, geometry in alone) > 5
    for (rows, geometry), (other_rows, other) in zip(alone, theirs, strict=True):
        assert np.array_equal(rows, other_rows) and (geometry is None) == (other is None)
        if geometry is not None:
            assert np.array_equal(geometry.inlier_matches, other.inlier_matches) and geometry.config == other.config
