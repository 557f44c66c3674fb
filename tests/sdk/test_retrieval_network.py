"""A network that retrieves in HF-Net's stead: who gives which role, what a map knows of it, and the coarse method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hfnet_edge.errors import MapFormatError, MismatchError
from hfnet_edge.features import look
from hfnet_edge.image.photo import fit, load_photo
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.container import Section
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.methods.registry import open_method
from hfnet_edge.networks.by_role import Networks, weights_of
from hfnet_edge.networks.description import GLOBAL_ROLE, HYPERCOLUMN_ROLE, LOCAL_ROLE, RETRIEVAL, _what_is_wrong
from hfnet_edge.networks.hfnet import Model, RawOutputs
from hfnet_edge.networks.retrieval import RetrievalModel
from hfnet_edge.outcome import result_text
from hfnet_edge.report import report_line
from hfnet_edge.result import Status
from hfnet_maps.build.merge import merge
from hfnet_maps.content import MapNetworks, content_of
from hfnet_maps.pack.writer import built_sections, to_map
from synthetic import CAMERA, EXTRACTOR, looking_at, place

RETRIEVING = replace(
    EXTRACTOR, weights_hash="7" * 32, outputs={GLOBAL_ROLE: GLOBAL_ROLE}, input_size=(64, 96), local_dim=0, nms_radius=0
)
TRUTH = looking_at(np.array([1013.0, -1996.0, 52.0]), np.array([1000.0, -2000.0, 50.0]))


class HFNet(Model):
    """HF-Net that finds nothing, and is sure of it."""

    def __init__(self, description=EXTRACTOR):
        self.path, self.description = "hfnet.tflite", description

    def __call__(self, pixels):
        h, w = (side // 8 for side in pixels.shape)
        logits = np.zeros((h, w, 65), np.float32)
        return RawOutputs(np.ones((h, w, 32), np.float32), np.eye(16, dtype=np.float32)[0], logits)


class Retrieves(RetrievalModel):
    """A retrieval network that keeps the pixels it was shown."""

    def __init__(self, description=RETRIEVING, path="densernet.tflite"):
        self.path, self.description, self.shown = path, description, []

    def run(self, pixels):
        self.shown.append(pixels)
        return {GLOBAL_ROLE: np.eye(16, dtype=np.float32)[5][None]}


@pytest.fixture(scope="module")
def town():
    p = place()
    return p, replace(p.source(), networks=MapNetworks.of(EXTRACTOR, RETRIEVING))


@pytest.mark.parametrize("first", [0, 1])
def test_the_retrieval_network_gives_the_global_descriptor(first):
    both = (HFNet(), Retrieves())
    networks = Networks(*(both if first == 0 else both[::-1]))
    assert networks.image is both[0] and networks.retrieval is both[1] and networks[GLOBAL_ROLE] is both[1]
    assert networks[LOCAL_ROLE] is both[0] and networks.patches is None
    with pytest.raises(MismatchError, match="both give global_descriptor"):
        Networks(*both, Retrieves(path="another.tflite"))
    with pytest.raises(MismatchError, match="both give"):
        Networks(both[1], both[0], HFNet(replace(EXTRACTOR, weights_hash="8" * 32)))
    with pytest.raises(MismatchError, match=r"densernet.tflite does not give local_descriptors"):
        _ = Networks(Retrieves()).image
    assert Networks(HFNet()).retrieval is None


def test_it_sees_the_photo_at_its_own_size():
    pixels = np.random.default_rng(0).integers(0, 256, (300, 500), np.uint8)
    photo, network = load_photo(pixels, EXTRACTOR.input_size), Retrieves()
    features, outputs = look(Networks(HFNet(), network), photo)
    assert features.global_descriptor.tolist() == [0] * 5 + [127] + [0] * 10
    assert np.array_equal(outputs[GLOBAL_ROLE], np.eye(16)[5])
    assert np.array_equal(network.shown[0][0], fit(photo.image, (64, 96))[0])
    same = Retrieves(replace(RETRIEVING, input_size=EXTRACTOR.input_size))
    look(Networks(same, HFNet()), photo)
    assert same.shown[0][0] is photo.pixels or np.array_equal(same.shown[0][0], photo.pixels)


@pytest.mark.parametrize(
    ("change", "said"),
    [({}, ""), ({"local_dim": 8}, "8 (local)"), ({"global_dim": 0}, "0 (global)"), ({"global_dim": 5000}, "5000")],
)
def test_what_a_retrieval_network_may_say_of_itself(change, said):
    wrong = _what_is_wrong(replace(RETRIEVING, **change))
    assert RETRIEVING.kind == RETRIEVAL
    assert said in wrong and bool(said) == bool(wrong)


def test_a_map_knows_both_networks(town):
    _, source = town
    m = to_map(built_sections(source))
    assert (m.description.weightsHash, m.description.globalWeightsHash) == ("0" * 32, "7" * 32)
    assert m.description.localRole == LOCAL_ROLE and not m.of_patches and Section.RANDOM_TREES not in m.file.sections
    assert weights_of(m) == {LOCAL_ROLE: "0" * 32, GLOBAL_ROLE: "7" * 32}
    assert content_of(m).networks == source.networks
    for method in ("hierarchical", "retrieval-pose", "auto"):
        open_method(m, Networks(HFNet(), Retrieves()), LocalizationConfig(method))
    for networks, said in (
        ((HFNet(),), r"of the weights 77777777.* name it too: --model densernet.tflite"),
        ((HFNet(), Retrieves(replace(RETRIEVING, weights_hash="8" * 32))), "has 88888888"),
        ((HFNet(replace(EXTRACTOR, weights_hash="8" * 32)), Retrieves()), "has 88888888"),
        ((HFNet(), Retrieves(replace(RETRIEVING, global_dim=8))), "16-D global"),
        ((Retrieves(),), "does not give local_descriptors"),
    ):
        with pytest.raises(MismatchError, match=said):
            open_method(m, Networks(*networks), LocalizationConfig())
    with pytest.raises(MismatchError, match="was built with weights 00000000"):
        open_method(place().map(), Networks(HFNet(), Retrieves()), LocalizationConfig())


def test_hypercolumns_are_of_hfnet(town):
    source = town[0].source(hypercolumns=12)
    m = to_map(built_sections(replace(source, networks=MapNetworks.of(EXTRACTOR, RETRIEVING))))
    assert weights_of(m)[HYPERCOLUMN_ROLE] == "0" * 32


def test_maps_of_other_networks_are_not_merged(town):
    p, source = town
    with pytest.raises(MismatchError, match="weights"):
        merge([source, p.source()], ["a", "b"])
    other = replace(source, names=tuple(f"b/{name}" for name in source.names))
    assert merge([source, other], ["a", "b"]).networks == source.networks


def test_a_role_that_nobody_has_is_refused(town):
    _, source = town
    content = bytearray(to_map(built_sections(source)).file.data)
    at = content.index(b"local_descriptors")
    content[at : at + 5] = b"focal"
    with pytest.raises(MapFormatError):  # the checksum
        LocalizationMap.read(bytes(content))
    with pytest.raises(Exception, match="focal_descriptors"):
        to_map(built_sections(replace(source, networks=replace(source.networks, local_role="focal_descriptors"))))


def test_the_coarse_answer_is_no_pose(town):
    p, source = town
    m = to_map(built_sections(source))
    features = p.features(TRUTH)
    config = LocalizationConfig("retrieval-pose", prior_frame_count=3)
    r = localize_features(m, features, CAMERA, config)
    best = int(np.argmax(m.global_descriptors.astype(int) @ features.global_descriptor.astype(int)))
    assert r.status is Status.COARSE and r.pose is None and r.prior_frames[0] == best and len(r.prior_frames) == 3
    assert r.coarse is not None and np.array_equal(r.coarse.translation, m.pose(best).translation)
    assert r.probability == 0 and r.wrong == 1
    line = report_line("q", r, m.image_names)
    assert line["status"] == "COARSE" and line["qvec"] is None
    assert line["coarse"]["tvec"] == r.coarse.translation.tolist()
    assert "no pose, COARSE" in result_text("q", r, CAMERA) and "looks like the reference image" in result_text(
        "q", r, CAMERA
    )
    nothing = replace(features, keypoints=np.zeros((0, 2)), scores=np.zeros(0), descriptors=np.zeros((0, 32), np.int8))
    r = localize_features(m, nothing, CAMERA, config)
    assert r.status is Status.NO_KEYPOINTS and r.coarse is None
    assert report_line("q", localize_features(m, features, CAMERA), m.image_names)["coarse"] is None
