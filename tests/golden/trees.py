"""The stages of paper 002: a map with random trees, a query, patches and vectors, all made by code."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.folder import Folder
from golden.loading import FIRST, INPUT_SIZE
from golden.matching import map_file
from golden.result import result_case
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.image.patches import PATCH_SCALE, SIDE, PatchKeypoints, cut
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.random_trees import Order
from hfnet_edge.methods.parallel_search import search, seen_by
from hfnet_edge.methods.retrieval import retrieve
from hfnet_edge.networks.patches import PatchModel
from hfnet_maps.content import DescribedMap, MapNetworks
from hfnet_maps.pack.writer import built_sections, to_map

CAMERA = Camera("PINHOLE", 640, 480, (500.0, 505.0, 321.0, 239.0))
PIXEL = 1.25  # of the network's input, in pixels of the image
LANDMARKS, IMAGES, DIM = 80, 40, 32
VIEWS = 3  # of each landmark, by images that follow each other
NOISE = 0.05  # of a component of a unit vector, from view to view
SHOWN, OTHERS = 32, 8  # keypoints of the query: of landmarks, and of nothing
PHOTOGRAPHED = f"arrays/{FIRST}/pixels.bin"  # that patches are cut from
ODD_SIZE = (157, 223)  # of it that is used
PATCH_METHODS = ("retrieval", "trees", "trees-absolute", "parallel")
FEW_LEAVES, ALL_LEAVES = 3, 180  # prior leaves; more than there are


def tree_map() -> LocalizationMap:
    """Landmarks before the cameras, described by a patch network that there is not."""
    rng = np.random.default_rng(0)
    looks = rng.normal(size=(LANDMARKS, DIM))
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    seen = (np.arange(LANDMARKS)[:, None] * IMAGES // LANDMARKS + np.arange(VIEWS)) % IMAGES
    views = looks.repeat(VIEWS, axis=0) + rng.normal(0, NOISE, (LANDMARKS * VIEWS, DIM))
    landmarks = np.arange(LANDMARKS).repeat(VIEWS)
    images = np.sort(seen, axis=1).ravel()
    extractor = MapNetworks("made by code", "0" * 32, "none", DIM, IMAGES, global_weights_hash="1" * 32)
    return to_map(
        built_sections(
            DescribedMap(
                extractor,
                tuple(f"{i:02d}.png" for i in range(IMAGES)),
                (Pose(np.array([1.0, 0, 0, 0]), np.zeros(3)),) * IMAGES,
                quantize(np.eye(IMAGES)),
                rng.uniform((-3, -2, 5), (3, 2, 10), (LANDMARKS, 3)),
                landmarks,
                images,
                landmarks,
                quantize(views),
            )
        )
    )


def tree_query(m: LocalizationMap) -> Features:
    """A view of some landmarks of the map, from a pose of its own and with noise, and keypoints of nothing: two of them
    without a direction and of extreme values."""
    rng = np.random.default_rng(1)
    shown = np.sort(rng.permutation(m.landmark_count)[:SHOWN])
    first = np.searchsorted(m.descriptors(np.arange(m.landmark_count))[1], shown)
    looks = m.descriptors(np.arange(m.landmark_count))[0][first] / 127
    pose = Pose(np.array([np.cos(0.05), 0.0, np.sin(0.05), 0.0]), np.array([0.4, -0.1, 0.2]))
    xy = CAMERA.project(pose.transform(m.positions(shown) + m.origin))
    rows = quantize(looks + rng.normal(0, NOISE, looks.shape))
    other = quantize(rng.normal(size=(OTHERS, DIM)))
    other[0], other[1] = 0, np.where(np.arange(DIM) % 2, 127, -128)
    return Features(
        np.concatenate([xy, rng.uniform((0, 0), (640, 480), (OTHERS, 2))]),
        np.linspace(1, 0.5, SHOWN + OTHERS, dtype=np.float32),
        np.concatenate([rows, other]),
        rng.permutation(IMAGES).astype(np.int8),  # no two images are as similar
        PIXEL,
    )


def patch_keypoints(size: tuple[int, int], count: int = 20) -> PatchKeypoints:
    """Keypoints of all scales and angles whose patches lie in an image of ``size`` (height, width), the largest first;
    the last four are turned by multiples of a right angle."""
    rng = np.random.default_rng(2)
    many = 50 * count
    found = PatchKeypoints(
        rng.uniform((0, 0), size[::-1], (many, 2)).astype(np.float32),
        np.exp(rng.uniform(np.log(0.5), np.log(min(size) / PATCH_SCALE), many)).astype(np.float32),
        rng.uniform(0, 2 * np.pi, many).astype(np.float32),
        np.ones(many, np.float32),
    )
    found = found[found.inside(size)]
    found = found[np.argsort(-found.scale, kind="stable")]
    found = found[(np.linspace(0, 1, count) ** 2 * (len(found) - 1)).astype(int)]  # large ones are rarely inside
    found.angle[-4:] = np.arange(4) * np.float32(np.pi / 2)
    return found


def light() -> tuple[np.ndarray, PatchKeypoints]:
    """An image of patches side by side whose samples are its pixels: flat, of one grey level's difference, dark, of all
    contrast, a ramp, and noise. Returns it and their keypoints."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:SIDE, :SIDE]
    tiles = [
        np.full((SIDE, SIDE), 100),
        100 + ((x == 5) & (y == 7)),
        (x + y) // 16,
        255 * ((x + y) % 2),
        4 * x + 3 * y,
        rng.integers(0, 256, (SIDE, SIDE)),
    ]
    image = np.concatenate([np.pad(tile, 1) for tile in tiles], axis=1).astype(np.uint8)
    n, pitch = len(tiles), SIDE + 2
    xy = np.stack([np.arange(n) * pitch + pitch / 2, np.full(n, pitch / 2)], axis=1).astype(np.float32)
    scale, zeros = np.full(n, SIDE / PATCH_SCALE, np.float32), np.zeros(n, np.float32)
    return image, PatchKeypoints(xy, scale, zeros, np.ones(n, np.float32))


def signed_vectors() -> np.ndarray:
    """(N, 8) float32: what a patch network might return, with numbers that round to 0 on either side of it."""
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(6, 8)).astype(np.float32)
    rows[:, :4] *= np.float32(1e-3)
    special = np.zeros((4, 8), np.float32)  # no length
    special[1, :2] = -1, -0.0
    special[2, :3] = -3e-13, 4e-13, 0  # too short for a direction
    special[3, :4] = 1, np.nan, -1, -1e-6
    return np.concatenate([rows, special])


def patch_cases(folder: Folder) -> None:
    """Patches, cut from a photo of the network's size and from an image of extremes; signs of descriptors."""
    pixels = np.frombuffer(folder.files[PHOTOGRAPHED], np.uint8).reshape(INPUT_SIZE)
    image, upright = light()
    tiles = folder.array("patches/light/pixels", image, "patches", "six patches of different light, side by side")
    for name, file, shown, keypoints in (
        ("angles", PHOTOGRAPHED, pixels[: ODD_SIZE[0], : ODD_SIZE[1]], patch_keypoints(ODD_SIZE)),
        ("light", tiles, image, upright),
    ):
        given = {
            key: folder.array(f"patches/{name}/{key}", getattr(keypoints, key), "patches", f"keypoints: {key}")
            for key in ("xy", "scale", "angle")
        }
        patches = folder.array(f"patches/{name}/patches", cut(shown, keypoints), "patches", "around the keypoints")
        folder.case("patches", name, {"pixels": file, "valid": shown.shape, **given}, {"patches": patches})
    vectors = signed_vectors()
    rounded = folder.array("patches/descriptors", signed(vectors), "signs", "of int8, signs kept")
    given = {"vectors": folder.array("patches/vectors", vectors, "signs", "of a patch network")}
    folder.case("signs", "small numbers", given, {"descriptors": rounded})


def tree_cases(folder: Folder) -> None:
    """Random trees and parallel search in a map made by code, and the pose by every method."""
    m = tree_map()
    query, trees, given_map = tree_query(m), m.trees, {"map": map_file("trees")}
    folder.files[given_map["map"]] = bytes(m.file.data)
    arrays: dict[str, Any] = {
        key: folder.array(f"trees/{key}", getattr(query, key), "result", f"made by code: {key}")
        for key in ("keypoints", "scores", "descriptors", "global_descriptor")
    } | {"pixel": query.pixel}

    def leaf_case(descriptors: np.ndarray, file: str, count: int, order: Order) -> tuple[np.ndarray, str]:
        leaves = trees.prior_leaves(descriptors, count, order)
        what = "numbers of leaves, -1 where there are no more"
        listed = folder.array(f"trees/{order}/{count}_leaves", leaves, "leaves", what)
        given = {**given_map, "descriptors": file, "count": count, "order": str(order)}
        folder.case("leaves", f"{order}/{count}", given, {"leaves": listed})
        return leaves, listed

    some = query.descriptors[-2 * OTHERS :: 3]
    leaf_case(
        some, folder.array("trees/some", some, "leaves", "some of the descriptors"), ALL_LEAVES, Order.PROBABILITY
    )
    none = np.zeros((2, 0), np.int64)
    pairs = {"": (none, folder.array("trees/no_pairs", none, "leaf_landmarks", "of no leaves"))}
    for order in Order:
        leaves, listed = leaf_case(query.descriptors, arrays["descriptors"], FEW_LEAVES, order)
        held = np.stack(trees.landmarks(leaves))
        stored = folder.array(f"trees/{order}/pairs", held, "leaf_landmarks", "rows of the leaves, landmarks in them")
        folder.case("leaf_landmarks", str(order), {**given_map, "leaves": listed}, {"pairs": stored})
        pairs[order] = held, stored
    frames = retrieve(m.global_query(query.global_descriptor), m.global_descriptors, 4)
    for name, images, ((rows, ids), stored) in (
        ("parallel", frames, pairs[Order.PROBABILITY]),
        ("trees", frames[:0], pairs[Order.ABSOLUTE]),
        ("frames", frames, pairs[""]),
    ):
        shared = seen_by(m, images)
        matches = search(query, m, shared, [(rows, ids)])
        given = {
            **given_map,
            "descriptors": arrays["descriptors"],
            "keypoints": arrays["keypoints"],
            "frames": images.tolist(),
            "pairs": stored,
        }
        assert matches.keypoints is not None and matches.landmarks is not None
        found = np.stack([matches.keypoints, matches.landmarks])
        expected = {
            "shared": shared.tolist(),
            "matches": folder.array(f"trees/{name}/matches", found, "search", "keypoints, landmarks"),
            "xyz": folder.array(f"trees/{name}/xyz", matches.xyz, "search", "the landmarks, from the map's origin"),
        }
        folder.case("search", name, given, expected)
    for method in PATCH_METHODS:
        result_case(folder, f"trees/{method}", "trees", m, CAMERA, query, arrays, method=method)


def signed(vectors: np.ndarray) -> np.ndarray:
    """What `PatchModel` makes of vectors (N, D) float32 that its network returned, (N, D) int8."""

    class Returns(PatchModel):
        def __init__(self) -> None:
            """There is no file."""

        def raw(self, patches: np.ndarray) -> np.ndarray:
            return vectors

    return Returns()(np.zeros((len(vectors), SIDE, SIDE), np.uint8))
