"""Real photos with laser-scanned ground truth, where they are: `make test-slow`."""

import numpy as np
import pytest

from hfnet_edge import Localizer, Model
from hfnet_edge.shell.lists import read_names, read_queries
from hfnet_export.export import export_hfnet
from hfnet_maps.build.builder import build_map
from hfnet_maps.build.reference import read_reference
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.budget import choose
from hfnet_maps.pack.writer import to_map

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(export_hfnet(output=tmp_path_factory.mktemp("model") / "hfnet_int8.tflite").file)


def packed(source):
    """As a phone would have it: a quarter of a megabyte."""
    return to_map(choose(source, 250_000)[0])


@pytest.mark.parametrize(("scene", "metres", "degrees"), [("castle", 0.08, 0.12), ("herzjesu", 0.04, 0.15)])
def test_photos_are_localized_to_centimetres(shared_data, model, scene, metres, degrees):
    root = shared_data / "scenes" / scene
    source, _ = build_map(root / "images", root / "reference", read_names(root / "map.txt"), model)
    localizer, truth = Localizer(packed(source), model), read_reference(root / "reference")
    errors = []
    for name, camera in read_queries(root / "queries_with_intrinsics.txt"):
        pose = localizer.localize(root / "images" / name, camera).pose
        errors.append((np.inf, np.inf) if pose is None else pose_error(pose, truth.pose(name)))
    assert np.max(errors, axis=0)[0] < 0.25 and np.max(errors, axis=0)[1] < 2
    assert (np.median(errors, axis=0) < (metres, degrees)).all()


def test_photos_of_another_place_get_no_pose(shared_data, model):
    castle, herzjesu = (shared_data / "scenes" / name for name in ("castle", "herzjesu"))
    source, _ = build_map(herzjesu / "images", herzjesu / "reference", read_names(herzjesu / "map.txt"), model)
    localizer = Localizer(packed(source), model)
    for name, camera in read_queries(castle / "queries_with_intrinsics.txt"):
        assert localizer.localize(castle / "images" / name, camera).pose is None
