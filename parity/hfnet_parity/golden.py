"""Golden vectors: small images made by code, and what every stage of the pipeline makes of them, as plain files.

    load ─> scale ─> network ─> scores ─> keypoints ─> descriptors, global ─> decode
         ─> retrieval ─> places ─> compared ─> nearest ─> matches ─> pose ─> inliers ─> result
    patches ─> signs ─> leaves ─> leaf_landmarks ─> search

A port to another language tests one stage at a time: each case starts from the golden result of the stage before.
`README` is what stands beside the files.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from hfnet_edge.errors import ModelError, OutputError
from hfnet_edge.features import MAX_KEYPOINTS, Features, decode, extract
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image.keypoints import MIN_SCORE, detect, quantize, sample_descriptors
from hfnet_edge.image.patches import SIDE, cut
from hfnet_edge.image.photo import Photo, load_photo
from hfnet_edge.localizer import LocalizationConfig, Method, Status, localize_features
from hfnet_edge.map.codecs import CodecName, project
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.random_trees import Order, RandomTrees
from hfnet_edge.methods.covisibility import cluster
from hfnet_edge.methods.matching import Match2D3D, match, nearest_two
from hfnet_edge.methods.parallel_search import search, seen_by
from hfnet_edge.methods.retrieval import retrieve
from hfnet_edge.networks.model import Model, RawOutputs
from hfnet_edge.networks.patch_model import PatchModel
from hfnet_edge.pose import PoseConfig, available_solvers, estimate_pose
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.files import atomic_folder, atomic_write, check_writable, parse_json, read_bytes
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.pack.packer import Packer, Settings
from hfnet_maps.pack.writer import to_map
from hfnet_maps.synthetic_town.made_place import MadePlace, PlaceView, made_place
from hfnet_parity.golden_corners import CAMERA, corner_map, corner_queries
from hfnet_parity.golden_trees import CAMERA as TREE_CAMERA
from hfnet_parity.golden_trees import OTHERS, light, patch_keypoints, signed_vectors, tree_map, tree_query

FORMAT = 1
MANIFEST, ABOUT = "manifest.json", "README.md"
KIND = "hfnet-edge golden vectors"
INPUT_SIZE = (160, 224)  # of the network: as small as localizes
SMALL = (64, 96)  # of the input where only loading is shown, and of the part of an image that is kept of its scores
MAP_VIEWS = 16
ELSEWHERE_SEED = 11
ALL = 1 << 16  # landmarks: as many as there are
MAPS = {
    "int8": Settings(CodecName.INT8, 128, 0, 4, 512),  # nothing is projected
    "pq": Settings(CodecName.PQ, 64, 16, 4, 64),  # both are
    "binary": Settings(CodecName.BINARY, 128, 0, 4, 512),
}
FIRST = "colour"  # the query whose bulky stages are kept whole, too
PHOTOGRAPHED = f"arrays/{FIRST}/pixels.bin"  # that patches are cut from
ODD_SIZE = (157, 223)  # of it that is used
PATCH_METHODS = tuple(method for method in Method if method is not Method.HIERARCHICAL)
FEW_LEAVES, ALL_LEAVES = 3, 180  # prior leaves; more than there are
POINTS = ((0.5, 0.5), (10.25, 3.5), (33.0, 20.75))  # of the network's input, to be taken to the camera
DTYPES = {"b1": "uint8", "u1": "uint8", "i1": "int8", "i4": "int32", "i8": "int32", "f4": "float32", "f8": "float64"}

TOLERANCES: dict[str, Any] = {
    "equal": "every number is the same, floats to the last bit",
    "network": {
        "what": "equal on XNNPACK for the same .tflite file (the global descriptor: on the same processor); else at "
        "most so many steps of int8 apart: the scale of the array, or 1/127 of the global descriptor",
        "steps": 4,  # 3 between two Xeons: ranges are calibrated in float, which rounds by processor
    },
    "pose": {
        "what": "for the same solver; distance of translations, angle between quaternions, and how many of the matches "
        "may be inliers in one and not in the other",
        "metres": 1e-4,
        "degrees": 1e-3,
        "inliers": 1,
    },
}


@dataclass(frozen=True)
class Stage:
    """What the README says of a stage: the function whose docstring specifies it, what it is given and returns."""

    pins: str
    given: str
    expected: str
    tolerance: str = "equal"


STAGES = {
    "load": Stage(
        "image.load_photo, image.Photo",
        "image, input_size (height, width), camera or null, xy: points of the network's input",
        "pixels, valid (height, width), size (width, height), orientation, camera_xy: the points in the camera's image",
    ),
    "scale": Stage("model.Description.scale", "pixels: all grey levels, input_range", "input"),
    "network": Stage(
        "model.Model", "pixels", "logits, local, global: the roles keypoint_logits, local_descriptors, "
        "global_descriptor", "network",
    ),
    "scores": Stage(
        "keypoints.keypoint_scores", "logits, part (height, width)", "sha256 of the float32 scores as a file would "
        "hold them; of one query, scores: their top left part",
    ),
    "keypoints": Stage("keypoints.detect", "scores, valid, count, radius, threshold, border", "xy, scores"),
    "descriptors": Stage("keypoints.sample_descriptors", "local, xy", "descriptors"),
    "global": Stage("keypoints.quantize", "global", "global_descriptor"),
    "decode": Stage(
        "features.decode", "logits, local, global; valid, size, orientation of the photo; radius, count, threshold",
        "keypoints, scores, descriptors, global_descriptor, pixel",
    ),
    "retrieval": Stage(
        "map_file.LocalizationMap.global_query, retrieval.retrieve",
        "map, global_descriptor, count; or query and references in place of a map",
        "compared: the query's descriptor, similarities: with each reference image, ranking",
    ),
    "places": Stage("covisibility.cluster", "map, ranking", "images and landmarks of each place, in order"),
    "compared": Stage("codecs.Codec.query", "map, descriptors", "compared"),
    "nearest": Stage(
        "matching.nearest_two", "map, descriptors, landmarks; or queries and references in place of a map",
        "nearest: rows of first, second, and their squared distances",
    ),
    "matches": Stage(
        "matching.match", "map, descriptors, keypoints, landmarks",
        "matches: rows of keypoints and landmarks; xyz: the landmarks' positions",
    ),
    "patches": Stage(
        "patches.cut", "pixels and valid (height, width): the image is their top left part; xy, scale and angle of "
        "keypoints", "patches",
    ),
    "signs": Stage("patch_model.PatchModel.__call__", "vectors: what the patch network returns", "descriptors"),
    "leaves": Stage(
        "random_trees.RandomTrees.prior_leaves", "map, descriptors, count, order: probability or absolute", "leaves"
    ),
    "leaf_landmarks": Stage(
        "random_trees.RandomTrees.landmarks", "map, leaves", "pairs: rows of the leaves, and landmarks in them"
    ),
    "search": Stage(
        "parallel_search.seen_by, parallel_search.search",
        "map, descriptors, keypoints, frames: reference images, pairs: as from leaf_landmarks",
        "shared: the landmarks that the frames observe; matches: rows of keypoints and landmarks; xyz",
    ),
    "pose": Stage(
        "pose.estimate_pose", "xy, xyz, camera, max_error in pixels, solver",
        "quaternion (w, x, y, z) and translation of cam_from_world, inliers", "pose",
    ),
    "inliers": Stage(
        "pose.estimate_pose", "quaternion and translation: what the solver found; xy, xyz, camera, max_error", "inliers"
    ),
    "result": Stage(
        "localizer.localize_features", "map, keypoints, scores, descriptors, global_descriptor, pixel, camera, solver; "
        "method, if it is not hierarchical",
        "status; where it is LOCALIZED, quaternion, translation (in the world) and the number of inliers; where it is "
        "REJECTED, their number unless it is chance", "pose",
    ),
}  # fmt: skip

README = """# Golden vectors

Small images made by code, and what each stage of the runtime makes of them. `hfnet-parity golden -o golden/` writes
this folder; do not edit it. Any language can read it:

    manifest = json(read("manifest.json"))
    for case in manifest.cases:
        given, expected = case.given, case.expected      # of one stage, see the table
        a value that ends in .png or .hfmap is a file of this folder, one that ends in .bin an array:
            entry = manifest.arrays[value]               # dtype, shape, and perhaps scale and zero_point
            array = read(value) as little-endian dtype, C order, without a header
            if entry has a scale: array = float32(array - entry.zero_point) * float32(entry.scale)
        any other value is itself: numbers, texts, lists, null
        compare stages[case.stage].function(given) with expected, within
            manifest.tolerances[manifest.stages[case.stage].tolerance]

Each case starts from the golden result of the stage before, so that stages can be tested one by one. `equal` means
equal: integers, and floats to the last bit. That holds in any language that computes elementwise in IEEE arithmetic, in
the types and the order that the docstrings name, without fused multiply-add and without flushing small numbers to zero.

| stage | function of `hfnet_edge` | given | expected | tolerance |
|---|---|---|---|---|
{rows}

Cameras are written as COLMAP does: model, width, height, parameters. Pixels: the centre of the top left one is
(0.5, 0.5). Sizes are as the stage returns them. Inliers of matches are uint8, indices int32.

The network's file is too large for this folder, and no stage but its own needs it. To make it:

    {command} -o hfnet.tflite

`manifest.network` has the SHA-256 of that file, the hash of its weights, and the tools that made it.
"""


@dataclass
class Folder:
    """The folder in memory.

    Attributes:
        files: by name below the folder.
        arrays, cases: of the manifest.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    arrays: dict[str, dict[str, Any]] = field(default_factory=dict)
    cases: list[dict[str, Any]] = field(default_factory=list)

    def array(self, name: str, value: np.ndarray, stage: str, what: str, **quantization: float) -> str:
        """Adds an array, int64 as int32 and bool as uint8, and returns the name of its file."""
        dtype = np.dtype(DTYPES[value.dtype.str[1:]])
        stored = value.astype(dtype)
        assert np.array_equal(stored, value, equal_nan=True)
        file = f"arrays/{name}.bin"
        assert file not in self.files
        self.files[file] = np.ascontiguousarray(stored, dtype.newbyteorder("<")).tobytes()
        self.arrays[file] = {
            "dtype": dtype.name,
            "shape": list(value.shape),
            "stage": stage,
            "what": what,
            **quantization,
        }
        return file

    def nothing(self, stage: str, what: str) -> str:
        """An array of no indices, one for all who need it."""
        file = "arrays/nothing.bin"
        return file if file in self.files else self.array("nothing", np.zeros(0, np.int64), stage, what)

    def case(self, stage: str, name: str, given: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        """Adds a case: the stage, given this, returns that."""
        self.cases.append({"stage": stage, "name": name, "given": dict(given), "expected": dict(expected)})


@dataclass(frozen=True)
class Query:
    """A query: its file below the folder, its bytes, and its camera."""

    name: str
    file: str
    content: bytes
    camera: Camera


def write_golden(output: Path, progress: Report = silent) -> None:
    """Writes the folder; the same tools on the same processor write the same bytes.

    Args:
        output: a new or empty folder, or one of golden vectors, which is replaced.

    Raises:
        OutputError: ``output`` holds something else, or cannot be written.
        ModelError: the network's outputs are not steps of int8.
    """
    output = Path(output)
    check_folder(output)
    progress("golden", 0, 4)
    content = export_network()
    model = Model("the network", content=content)
    progress("golden", 1, 4)
    place = made_place(map_views=MAP_VIEWS, query_views=6, size=INPUT_SIZE)
    folder = Folder()
    loading_cases(folder, place)
    queries = make_queries(folder, place)
    progress("golden", 2, 4)
    maps = make_maps(folder, place, model)
    progress("golden", 3, 4)
    steps = output_steps(content)
    tie_cases(folder)
    edge_cases(folder)
    corner_cases(folder)
    for query in queries:
        query_cases(folder, query, model, steps, maps)
    patch_cases(folder)
    tree_cases(folder)
    _scale_case(folder, model)
    folder.files[MANIFEST] = _manifest(folder, content, model)
    folder.files[ABOUT] = readme().encode()
    replace_folder(output, folder.files)
    progress("golden", 4, 4)


def check_folder(output: Path) -> None:
    """``output`` may be written: it is not there, or empty, or holds golden vectors. Raises OutputError."""
    check_writable(output.resolve(), folder=True)
    if output.is_dir() and any(output.iterdir()):
        try:
            kind = parse_json(read_bytes(output / MANIFEST))["kind"]
        except (OSError, ValueError, KeyError, TypeError):
            kind = ""
        if kind != KIND:
            raise OutputError(f"{output} holds something else than golden vectors", "name a new or empty folder")


def replace_folder(output: Path, files: Mapping[str, bytes]) -> None:
    """Writes the files to a folder beside ``output``, and puts it in its place. Raises OutputError."""
    output = output.resolve()
    old = output.with_name(f".{output.name[:100]}.{secrets.token_hex(8)}.old")  # what a killed run leaves is kept
    try:
        with atomic_folder(output) as new:
            for name, content in files.items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(new / name) as file:
                    file.write(content)
            if output.exists():
                output.rename(old)
    finally:
        if old.exists() and not output.exists():
            old.rename(output)
        shutil.rmtree(old, ignore_errors=True)


def readme() -> str:
    """README.md."""
    rows = "\n".join(
        f"| {name} | `{s.pins.replace(', ', '`, `')}` | {s.given} | {s.expected} | {s.tolerance} |"
        for name, s in STAGES.items()
    )
    return README.format(rows=rows, command=command())


def command() -> str:
    """What exports the network."""
    return f"hfnet-export hfnet --quantize int8 --input-size {INPUT_SIZE[0]}x{INPUT_SIZE[1]}"


def made_with() -> dict[str, Any]:
    """What decides over the bytes: tools, and what the processor can do."""
    from hfnet_export.tflite.convert import toolchain

    packages = ("numpy", "opencv-python-headless", "pillow", "pycolmap", "poselib")
    features = np._core._multiarray_umath.__cpu_features__  # type: ignore[attr-defined]
    return {
        "tools": [*toolchain(), *(f"{name} {version(name)}" for name in packages)],
        "machine": platform.machine(),
        "processor": sorted(name for name, there in features.items() if there),
    }


def export_network() -> bytes:
    """The network's file, by `command`."""
    from hfnet_export.export import export_hfnet

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hfnet.tflite"
        export_hfnet(output=path, quantize="int8", input_size=INPUT_SIZE)
        return path.read_bytes()


def output_steps(content: bytes) -> dict[str, tuple[float, int]]:
    """Scale and zero point of the outputs that the network computes in int8, by name in the signature."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # a delegate hides the operators
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    tensors = {t["index"]: t for t in interpreter.get_tensor_details()}
    made_by = {output: op for op in interpreter._get_ops_details() for output in op["outputs"]}
    found = {}
    for name, output in interpreter.get_signature_runner().get_output_details().items():
        op = made_by[output["index"]]
        if op["op_name"] == "DEQUANTIZE":
            found[name] = tensors[op["inputs"][0]]["quantization"]
    return found


def to_steps(values: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """float32 values as the int8 that they are, (q - zero_point) * scale. Raises ModelError: they are not."""
    steps = np.rint(values / np.float32(scale)) + zero_point
    q = np.clip(steps, -128, 127).astype(np.int8)
    again = (q.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
    if again.dtype != np.float32 or not np.array_equal(again, values):
        raise ModelError("the network's outputs are not steps of int8", "export it with --quantize int8")
    return q


def png(pixels: np.ndarray, orientation: int = 1) -> bytes:
    """(h, w) uint8 or uint16, or (h, w, 3) uint8 as a PNG file; its EXIF says the orientation unless it is 1."""
    exif = Image.Exif()
    if orientation != 1:
        exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True, **({"exif": exif} if orientation != 1 else {}))
    return file.getvalue()


def grey(pixels: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 to (h, w) uint8 luma."""
    return np.asarray(Image.fromarray(pixels).convert("L"))


def loading_cases(folder: Folder, place: MadePlace) -> None:
    """All that loading has to get right."""
    picture = place.render(place.views[-1])[16:144, 20:140]
    level = grey(picture)
    wide = level[:40].astype(np.uint16)
    pictures = {
        "luma": (png(picture[:64, :96]), "colour, of the input's size"),
        "grey16": (png(wide * 257 - wide[::-1]), "16 bits"),
        "reduced": (png(level[:, :93]), "reduced to 64x46.5, which is rounded to even; the rest is mirrored twice"),
        "enlarged": (png(level[:40, :56]), "enlarged"),
        "wide": (png(level[:40, :120]), "reduced; the rest below is mirrored"),
    }
    pictures |= {
        f"exif{o}": (png(level[:45, :64], o), f"EXIF orientation {o}, with the stored image's camera")
        for o in range(2, 9)
    }
    for name, (content, what) in pictures.items():
        width, height = Image.open(io.BytesIO(content)).size
        described = Camera("SIMPLE_PINHOLE", width, height, (60.0, width / 2, height / 2))
        for camera in (described, None) if name == "exif6" else (described,):
            label = name if camera else f"{name} upright"
            _load_case(folder, label, f"images/{name}.png", content, what, SMALL, camera)


def _load_case(
    folder: Folder,
    name: str,
    file: str,
    content: bytes,
    what: str,
    input_size: tuple[int, int],
    camera: Camera | None,
) -> tuple[Photo, str]:
    """Adds the image and its case; returns the photo and the name of its pixels."""
    folder.files[file] = content
    with tempfile.NamedTemporaryFile(suffix=".png") as image:
        image.write(content)
        image.flush()
        photo = load_photo(image.name, input_size, camera)
    pixels = folder.array(f"{name.replace(' ', '_')}/pixels", photo.pixels, "load", f"network input: {what}")
    given = {"image": file, "input_size": input_size, "camera": camera and str(camera), "xy": POINTS}
    expected = {
        "pixels": pixels,
        "valid": photo.valid,
        "size": photo.size,
        "orientation": photo.orientation,
        "camera_xy": photo.to_camera(np.array(POINTS, np.float32)).tolist(),
    }
    folder.case("load", name, given, expected)
    return photo, pixels


def make_queries(folder: Folder, place: MadePlace) -> list[Query]:
    """Three views of the place, one of another, and a black image."""
    views = [view for view in place.views if view.is_query]
    elsewhere = made_place(ELSEWHERE_SEED, map_views=2, query_views=2, size=INPUT_SIZE)
    height, width = INPUT_SIZE

    def at(view: PlaceView, size: tuple[int, int]) -> PlaceView:
        fx, fy, cx, cy = view.camera.params
        sx, sy = size[0] / width, size[1] / height
        camera = Camera("PINHOLE", *size, (fx * sx, fy * sy, cx * sx, cy * sy))
        return replace(view, camera=Camera.parse(str(camera)))

    upright = at(views[4], (width, height))
    fx, fy, cx, cy = upright.camera.params
    stored = Camera.parse(str(Camera("PINHOLE", height, width, (fy, fx, cy, width - cx))))
    odd, other = at(views[3], (335, 239)), at(elsewhere.views[3], (width, height))
    seen = at(views[0], (width, height))
    made = [
        (FIRST, png(place.render(seen)), seen.camera),
        ("odd", png(grey(place.render(odd))), odd.camera),
        ("sideways", png(np.rot90(grey(place.render(upright))), 6), stored),
        ("elsewhere", png(grey(elsewhere.render(other))), other.camera),
        ("black", png(np.zeros(INPUT_SIZE, np.uint8)), seen.camera),
    ]
    return [Query(name, f"images/{name}.png", content, camera) for name, content, camera in made]


def make_maps(folder: Folder, place: MadePlace, model: Model) -> dict[str, LocalizationMap]:
    """The place's map by each codec."""
    views = [view for view in place.views if not view.is_query]
    photos = [Photo(grey(place.render(v)), INPUT_SIZE, INPUT_SIZE[::-1]) for v in views]
    source, _ = map_from_features(
        [view.name for view in views],
        [view.camera for view in views],
        [view.pose for view in views],
        [extract(model, photo) for photo in photos],
        model.description,
    )
    packer, maps = Packer(source), {}
    for name, settings in MAPS.items():
        maps[name] = to_map(packer.pack(settings, ALL))
        folder.files[map_file(name)] = bytes(maps[name].file.data)
    return maps


def map_file(name: str) -> str:
    """Where a map is in the folder."""
    return f"maps/{name}.hfmap"


def tie_cases(folder: Folder) -> None:
    """Equals, which int8 makes common, made by code: plateaus of scores, and vectors that repeat."""
    rng = np.random.default_rng(0)
    levels = np.kron(rng.integers(0, 5, (16, 22)), np.ones((3, 3), np.int64)) + (rng.random((48, 66)) < 0.05)
    scores = folder.array("ties/scores", levels.astype(np.float32) / np.float32(16), "keypoints", "plateaus of equals")
    _keypoint_case(folder, "ties", scores, {"valid": (48, 62), "count": 40, "radius": 3, "threshold": 0.1, "border": 4})
    references = np.repeat(np.rint(rng.normal(0, 30, (300, 8))), 5, axis=0)[rng.permutation(1500)].astype(np.int8)
    queries = np.concatenate([references[::100], np.rint(rng.normal(0, 30, (9, 8))).astype(np.int8)])
    given: dict[str, Any] = {
        "queries": folder.array("ties/queries", queries, "nearest", "vectors"),
        "references": folder.array("ties/references", references, "nearest", "vectors, each five times"),
    }
    _nearest_case(folder, "ties", given, queries, references)
    given = {
        "query": folder.array("ties/query", queries[0], "retrieval", "the first of the vectors"),
        "references": folder.array("ties/images", references[:200], "retrieval", "of these vectors"),
        "count": 30,
    }
    _retrieval_case(folder, "ties", given, queries[0], references[:200], {})


def edge_cases(folder: Folder) -> None:
    """Numbers that lie exactly on a limit, and vectors that have no direction."""
    lowest, low, high = np.float32(MIN_SCORE), np.float32(0), np.float32(1)
    levels = np.zeros((24, 40), np.float32)
    levels[12, [8, 20, 32]] = np.nextafter(lowest, low), lowest, np.nextafter(lowest, high)
    levels[4, 14], levels[3, 26] = 0.5, 0.5
    scores = folder.array("edges/scores", levels, "keypoints", "peaks about the threshold, and at the border")
    limits = {"count": MAX_KEYPOINTS, "radius": 4, "threshold": MIN_SCORE, "border": 4}
    _keypoint_case(folder, "edges", scores, {"valid": levels.shape, **limits})

    vectors = {  # numbers of four dimensions
        "zeros": (0, 0, 0, 0),
        "nan": (1, np.nan, 1, 1),
        "shorter": (3e-13, -4e-13, 0, 0),  # than 1e-12
        "longer": (3e-12, -4e-12, 0, 0),
        "halves": (125, -221, 7, 1),  # of length 254; rounded to even
    }
    dense = np.tile(np.array([1, 2, -3, 4], np.float32), (2, 2 * len(vectors), 1))
    for i, (name, numbers) in enumerate(vectors.items()):
        vector = np.array(numbers, np.float32)
        dense[0, 2 * i] = vector
        wide = folder.array(f"edges/{name}", vector, "global", f"a vector: {name}")
        rounded = folder.array(f"edges/{name}_rounded", quantize(vector[None])[0], "global", "of int8")
        folder.case("global", f"edges/{name}", {"global": wide}, {"global_descriptor": rounded})
    xy = np.stack(np.meshgrid(np.arange(0, 81, 4), np.arange(0, 17, 4)), axis=-1).reshape(-1, 2).astype(np.float32)
    given = {
        "local": folder.array("edges/local", dense, "descriptors", "the vectors, one in two cells of the first row"),
        "xy": folder.array("edges/xy", xy, "descriptors", "centres, sides and corners of all cells"),
    }
    sampled = folder.array("edges/sampled", sample_descriptors(dense, xy), "descriptors", "there")
    folder.case("descriptors", "edges", given, {"descriptors": sampled})
    _inlier_case(folder)


def _inlier_case(folder: Folder) -> None:
    """Errors of exactly 10 pixels, and points that are not in front of the camera."""
    inside, outside = np.nextafter(10.0, [0.0, 11.0])
    off = np.array([[0, 0], [inside, 0], [10, 0], [0, -10], [6, 8], [-8, 6], [outside, 0], [0, 0], [0, 0]])
    xyz = np.array([[0.0, 0.0, 2.0]] * 7 + [[0.0, 0.0, 0.0], [0.0, 0.0, -2.0]])
    camera = Camera("PINHOLE", 64, 48, (64.0, 64.0, 0.0, 0.0))  # all of it is exact
    pose = Pose(np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(3))
    given = {
        **_pose(pose),
        "xy": folder.array("edges/matched_xy", off, "inliers", "pixels"),
        "xyz": folder.array("edges/xyz", xyz, "inliers", "landmarks"),
        "camera": str(camera),
        "max_error": 10.0,
    }
    expected = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0], np.uint8)
    folder.case("inliers", "edges", given, {"inliers": folder.array("edges/inliers", expected, "inliers", "by match")})


def corner_cases(folder: Folder) -> None:
    """The search in a map made by hand: every status, and more than one place."""
    m = corner_map()
    folder.files[map_file("corners")] = bytes(m.file.data)
    for query, features in corner_queries(m).items():
        name = f"corners/{query}"
        arrays = {
            key: folder.array(f"{name}/{key}", getattr(features, key), "result", f"made by hand: {key}")
            for key in ("keypoints", "scores", "descriptors", "global_descriptor")
        } | {"pixel": features.pixel}
        for i, place in enumerate(_search_cases(folder, name, "corners", m, features, arrays)):
            _match_cases(folder, f"{name}/place{i}", "corners", m, features, arrays, *place)
        for solver in available_solvers():
            _result_case(folder, name, "corners", m, CAMERA, features, arrays, solver, rejected=True)


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
    query, trees, given_map = tree_query(m), RandomTrees.of(m), {"map": map_file("trees")}
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
        found = np.stack([matches.keypoints, matches.landmarks])
        expected = {
            "shared": shared.tolist(),
            "matches": folder.array(f"trees/{name}/matches", found, "search", "keypoints, landmarks"),
            "xyz": folder.array(f"trees/{name}/xyz", matches.xyz, "search", "the landmarks, from the map's origin"),
        }
        folder.case("search", name, given, expected)
    for method in PATCH_METHODS:
        for solver in available_solvers():
            _result_case(folder, f"trees/{method}", "trees", m, TREE_CAMERA, query, arrays, solver, method=method)


def signed(vectors: np.ndarray) -> np.ndarray:
    """What `PatchModel` makes of vectors (N, D) float32 that its network returned, (N, D) int8."""

    class Returns(PatchModel):
        def __init__(self) -> None:
            """There is no file."""

        def raw(self, patches: np.ndarray) -> np.ndarray:
            return vectors

    return Returns()(np.zeros((len(vectors), SIDE, SIDE), np.uint8))


def query_cases(
    folder: Folder,
    query: Query,
    model: Model,
    steps: Mapping[str, tuple[float, int]],
    maps: Mapping[str, LocalizationMap],
) -> None:
    """All stages of one query."""
    name, roles = query.name, model.description.outputs
    size = model.description.input_size
    photo, pixels = _load_case(folder, name, query.file, query.content, "a query", size, query.camera)

    raw = model(photo.pixels)
    assert raw.keypoint_logits is not None

    def output(short: str, role: str, values: np.ndarray) -> str:
        scale, zero_point = steps[roles[role]]
        q = to_steps(values, scale, zero_point)
        return folder.array(f"{name}/{short}", q, "network", role, scale=float(scale), zero_point=int(zero_point))

    made = {
        "logits": output("logits", "keypoint_logits", raw.keypoint_logits),
        "local": output("local", "local_descriptors", raw.local_descriptors),
        "global": folder.array(f"{name}/global", raw.global_descriptor, "network", "global_descriptor"),
    }
    folder.case("network", name, {"pixels": pixels}, made)

    scores = raw.scores()
    expected = {"sha256": hashlib.sha256(scores.astype("<f4").tobytes()).hexdigest()}
    limits = {"count": MAX_KEYPOINTS, "radius": model.description.nms_radius, "threshold": MIN_SCORE}
    if name == FIRST:
        height, width = SMALL
        expected["scores"] = folder.array(
            f"{name}/scores", scores[:height, :width], "scores", "of each pixel of a part"
        )
        _keypoint_case(folder, name, expected["scores"], {"valid": SMALL, **limits, "border": 4})
    folder.case("scores", name, {"logits": made["logits"], "part": SMALL}, expected)

    features = decode(raw, photo, model.description.nms_radius)
    arrays = _feature_cases(folder, name, raw, photo, features, made, limits)
    if not len(features.keypoints):
        made_of = next(iter(maps))
        _result_case(folder, name, made_of, maps[made_of], query.camera, features, arrays, available_solvers()[0])
        return
    for map_name, m in maps.items():
        _map_cases(folder, query, map_name, m, features, arrays)


def _keypoint_case(folder: Folder, name: str, scores: str, limits: Mapping[str, Any]) -> None:
    stored = np.frombuffer(folder.files[scores], "<f4").reshape(folder.arrays[scores]["shape"])
    xy, best = detect(stored, **limits)
    expected = {
        "xy": folder.array(f"{name}/detected_xy", xy, "keypoints", "pixels of the network's input"),
        "scores": folder.array(f"{name}/detected_scores", best, "keypoints", "highest first"),
    }
    folder.case("keypoints", name, {"scores": scores, **limits}, expected)


def _feature_cases(
    folder: Folder,
    name: str,
    raw: RawOutputs,
    photo: Photo,
    features: Features,
    made: Mapping[str, str],
    limits: Mapping[str, Any],
) -> dict[str, Any]:
    """Descriptors, and the features as a whole; returns what these are called."""
    xy, _ = detect(raw.scores(), photo.valid, limits["count"], limits["radius"], limits["threshold"])
    assert np.array_equal(sample_descriptors(raw.local_descriptors, xy), features.descriptors)
    assert np.array_equal(quantize(raw.global_descriptor[None])[0], features.global_descriptor)
    arrays: dict[str, Any] = {
        "keypoints": folder.array(f"{name}/keypoints", features.keypoints, "decode", "pixels of the camera's image"),
        "scores": folder.array(f"{name}/keypoint_scores", features.scores, "decode", "of the keypoints"),
        "descriptors": folder.array(f"{name}/descriptors", features.descriptors, "descriptors", "of the keypoints"),
        "global_descriptor": folder.array(
            f"{name}/global_descriptor", features.global_descriptor, "global", "of the image"
        ),
    }
    if len(xy):
        given = {
            "local": made["local"],
            "xy": folder.array(f"{name}/xy", xy, "keypoints", "keypoints, pixels of the network's input"),
        }
        folder.case("descriptors", name, given, {"descriptors": arrays["descriptors"]})
    folder.case("global", name, {"global": made["global"]}, {"global_descriptor": arrays["global_descriptor"]})
    arrays["pixel"] = features.pixel
    of_photo = {"valid": photo.valid, "size": photo.size, "orientation": photo.orientation}
    folder.case("decode", name, {**made, **of_photo, **limits}, arrays)
    return arrays


def _map_cases(
    folder: Folder,
    query: Query,
    map_name: str,
    m: LocalizationMap,
    features: Features,
    arrays: Mapping[str, Any],
) -> None:
    """All that happens between a query's features and its pose in one map; all its landmarks are of one place."""
    name, config = f"{query.name}/{map_name}", LocalizationConfig()
    ((landmarks, listed),) = _search_cases(folder, name, map_name, m, features, arrays)
    queries = m.codec.query(features.descriptors)
    if query.name == FIRST and queries is not features.descriptors:
        shown = folder.array(f"{name}/compared", queries, "compared", "descriptors as the codec compares them")
        given = {"map": map_file(map_name), "descriptors": arrays["descriptors"]}
        folder.case("compared", name, given, {"compared": shown})
    matches, xyz = _match_cases(folder, name, map_name, m, features, arrays, landmarks, listed)
    poses = {
        solver: _result_case(folder, name, map_name, m, query.camera, features, arrays, solver)
        for solver in available_solvers()
    }
    if None in poses.values():
        return  # what a solver makes of wrong matches is chance
    given = {
        "xy": folder.array(f"{name}/matched_xy", matches.xy, "pose", "the keypoints, pixels of the camera's image"),
        "xyz": xyz,
        "camera": str(query.camera),
        "max_error": config.pose.max_error * features.pixel,
    }
    for solver in poses:
        estimate = estimate_pose(matches, query.camera, given["max_error"], PoseConfig(solver=solver))
        assert estimate is not None and estimate.pose is not None
        inliers = folder.array(f"{name}/inliers_{solver}", estimate.inliers, "pose", f"of the matches, by {solver}")
        folder.case(
            "pose", f"{name}/{solver}", {**given, "solver": solver}, {**_pose(estimate.pose), "inliers": inliers}
        )


def _search_cases(
    folder: Folder, name: str, map_name: str, m: LocalizationMap, features: Features, arrays: Mapping[str, Any]
) -> list[tuple[np.ndarray, str]]:
    """Retrieval and places; returns the landmarks of each place that has some, and their file."""
    file = map_file(map_name)
    compared = m.global_query(features.global_descriptor)
    given: dict[str, Any] = {
        "map": file,
        "global_descriptor": arrays["global_descriptor"],
        "count": LocalizationConfig().frames,
    }
    expected = {"compared": folder.array(f"{name}/global_compared", compared, "retrieval", "global descriptor")}
    ranking = _retrieval_case(folder, name, given, compared, m.global_descriptors, expected)
    places = cluster(m, ranking)
    files = [
        folder.array(f"{name}/place{i}", place.landmarks, "places", "landmarks of a place")
        if len(place.landmarks)
        else folder.nothing("places", "landmarks of a place that has none")
        for i, place in enumerate(places)
    ]
    found = [{"images": p.images.tolist(), "landmarks": listed} for p, listed in zip(places, files, strict=True)]
    folder.case("places", name, {"map": file, "ranking": ranking.tolist()}, {"places": found})
    return [(p.landmarks, listed) for p, listed in zip(places, files, strict=True) if len(p.landmarks)]


def _match_cases(
    folder: Folder,
    name: str,
    map_name: str,
    m: LocalizationMap,
    features: Features,
    arrays: Mapping[str, Any],
    landmarks: np.ndarray,
    listed: str,
) -> tuple[Match2D3D, str]:
    """The nearest and the matches among the landmarks of one place; returns these, and the file of their positions."""
    given = {"map": map_file(map_name), "descriptors": arrays["descriptors"], "landmarks": listed}
    _nearest_case(folder, name, given, m.codec.query(features.descriptors), m.descriptors(landmarks)[0])
    matches = match(features, m, landmarks)
    rows = np.stack([matches.keypoints, matches.landmarks])
    expected = {
        "matches": folder.array(f"{name}/matches", rows, "matches", "keypoints, landmarks"),
        "xyz": folder.array(f"{name}/xyz", matches.xyz, "matches", "the landmarks, from the map's origin"),
    }
    folder.case("matches", name, {**given, "keypoints": arrays["keypoints"]}, expected)
    return matches, expected["xyz"]


def _retrieval_case(
    folder: Folder,
    name: str,
    given: Mapping[str, Any],
    query: np.ndarray,
    references: np.ndarray,
    expected: Mapping[str, Any],
) -> np.ndarray:
    ranking = retrieve(query, references, given["count"])
    similarities = project(query[None], references)[0]
    expected = {**expected, "similarities": similarities.tolist(), "ranking": ranking.tolist()}
    folder.case("retrieval", name, given, expected)
    return ranking


def _nearest_case(
    folder: Folder, name: str, given: Mapping[str, Any], queries: np.ndarray, references: np.ndarray
) -> None:
    nearest = np.stack(nearest_two(queries, references))
    what = "rows: the nearest, the second, the squared distance of each"
    folder.case("nearest", name, given, {"nearest": folder.array(f"{name}/nearest", nearest, "nearest", what)})


def _result_case(
    folder: Folder,
    name: str,
    map_name: str,
    m: LocalizationMap,
    camera: Camera,
    features: Features,
    arrays: Mapping[str, Any],
    solver: str,
    rejected: bool = False,
    method: Method = Method.HIERARCHICAL,
) -> Pose | None:
    """``rejected``: a rejected pose is not chance, so its inliers are kept, too."""
    result = localize_features(m, features, camera, LocalizationConfig(method, pose=PoseConfig(solver=solver)))
    expected: dict[str, Any] = {"status": result.status.value}
    if result.status is Status.LOCALIZED:
        assert result.pose is not None
        expected |= {**_pose(result.pose), "inliers": result.inliers}
    elif result.status is Status.REJECTED and rejected:
        expected["inliers"] = result.inliers
    given = {"map": map_file(map_name), **arrays, "camera": str(camera), "solver": solver}
    given |= {} if method is Method.HIERARCHICAL else {"method": str(method)}
    folder.case("result", f"{name}/{solver}", given, expected)
    return result.pose


def _pose(pose: Pose) -> dict[str, Any]:
    return {"quaternion": pose.quaternion.tolist(), "translation": pose.translation.tolist()}


def _scale_case(folder: Folder, model: Model) -> None:
    """The network's input for all grey levels."""
    levels = np.arange(256, dtype=np.uint8)[None]
    inputs = model.description.scale(levels)[0, :, :, 0]
    given = {
        "pixels": folder.array("levels/pixels", levels, "scale", "all grey levels"),
        "input_range": model.description.input_range,
    }
    what = "what the network is given for them"
    folder.case("scale", "levels", given, {"input": folder.array("levels/input", inputs, "scale", what)})


def _manifest(folder: Folder, content: bytes, model: Model) -> bytes:
    """manifest.json, one line for each array and case."""
    d = model.description
    about = {
        "kind": KIND,
        "format": FORMAT,
        "made_with": made_with(),
        "tolerances": TOLERANCES,
        "network": {
            "command": command(),
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "weights_hash": d.weights_hash,
            "input_size": d.input_size,
            "input_range": d.input_range,
            "nms_radius": d.nms_radius,
            "toolchain": d.toolchain,
        },
        "stages": {
            name: {"pins": [f"hfnet_edge.{p}" for p in s.pins.split(", ")], "tolerance": s.tolerance}
            for name, s in STAGES.items()
        },
        "files": sorted([MANIFEST, ABOUT, *folder.files]),
    }
    order = list(STAGES)
    cases = sorted(folder.cases, key=lambda case: order.index(case["stage"]))  # stable
    parts = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in about.items()]
    arrays = ",\n".join(f"  {json.dumps(file)}: {json.dumps(entry)}" for file, entry in folder.arrays.items())
    listed = ",\n".join(f"  {json.dumps(case)}" for case in cases)
    parts += [f' "arrays": {{\n{arrays}\n }}', f' "cases": [\n{listed}\n ]']
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()
