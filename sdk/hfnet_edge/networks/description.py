"""What a model file says of itself: metadata of the .tflite, `schema/description.fbs`.

LiteRT checks little of a file before it runs it, and a damaged graph ends the process. So the description carries a
checksum over the whole file, which is compared before LiteRT sees a byte, and every field has a bound.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass

import numpy as np

from hfnet_edge.errors import ModelError
from hfnet_edge.image.keypoints import CELL
from hfnet_edge.image.patches import SIDE
from hfnet_edge.map.map_file import LOCAL, MAX_GLOBAL_DIM, MAX_LOCAL_DIM, PATCH
from hfnet_edge.schema.description_generated import ModelDescription, ModelDescriptionT

METADATA_NAME = "HFNET_EDGE"
KEYPOINT_ROLES = ("keypoint_logits", "keypoint_scores")  # a network has one of them, and both of the others
LOCAL_ROLE, GLOBAL_ROLE = DESCRIPTOR_ROLES = (LOCAL, "global_descriptor")
# Further parts of the local descriptors, on finer grids; role to pixels of the input between two of its points.
FINER_ROLES = {"local_descriptors_quarter": 4, "local_descriptors_half": 2}
LOCAL_ROLES = {LOCAL_ROLE: CELL, **FINER_ROLES}
HYPERCOLUMN_ROLE = "hypercolumns"  # of every cell of the input; a network may have it
PATCH_ROLE = PATCH  # of a patch network, which has no other
SCENE_ROLE = "scene_labels"  # of a scene network, which has no other
KINDS = IMAGE, PATCHES, SCENE, RETRIEVAL = ("an HF-Net", "a patch network", "a scene network", "a retrieval network")
DETECTORS = NETWORK, BLOBS = ("network", "blobs")  # who finds keypoints; the network adds its own to blobs
PRECISIONS = ("none", "fp16", "dynamic", "int8")
TFLITE_IDENTIFIER = b"TFL3"
CHECKSUM_FIELD = 12  # of ModelDescription
UNSEALED = "0" * 64  # stands where the checksum will be, and counts in its place
MAX_SIDE = 4096  # pixels of the network's input
MAX_NMS_RADIUS = 64  # pixels
MAX_LEVEL = 65535.0  # of the input range, either side of 0
MAX_TEXT = 200  # characters of a name
MAX_LINES = 64  # of the toolchain
EXPORT_AGAIN = "export it again with `hfnet-export`"


@dataclass(frozen=True)
class Description:
    """What a model file says of itself.

    Attributes:
        architecture: for people.
        weights_hash: 32 hex digits; the same weights at another precision or input size have the same hash.
        precision: "none" (float32), "fp16", "dynamic" or "int8".
        input_size: height, width in pixels.
        input_range: what grey levels 0 and 255 are mapped to.
        local_dim, global_dim: widths of the descriptors, of the local ones all parts together; patch and scene networks
            have no global one: 0; a retrieval network no local ones. The local ones of a scene network are what it is
            given.
        nms_radius: of the keypoint decoding, pixels of the network's input; 0 where there is none.
        outputs: role to name in the default signature.
        toolchain: versions that made the file.
        detector: one of `DETECTORS`: the network, or `hfnet_edge.image.blobs`, which its descriptors were taught at.
    """

    architecture: str
    weights_hash: str
    precision: str
    input_size: tuple[int, int]
    input_range: tuple[float, float]
    local_dim: int
    global_dim: int
    nms_radius: int
    outputs: dict[str, str]
    toolchain: tuple[str, ...]
    detector: str = NETWORK

    @property
    def kind(self) -> str:
        """One of `KINDS`, by what the network gives: see `hfnet_edge.networks.by_role.LOADED_AS`."""
        if self.outputs.keys() == {GLOBAL_ROLE}:
            return RETRIEVAL
        return PATCHES if PATCH_ROLE in self.outputs else SCENE if SCENE_ROLE in self.outputs else IMAGE

    def scale(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W) or (N, H, W) uint8 grey levels to the network's input, (N, H, W, 1) float32 in ``input_range``."""
        low, high = self.input_range
        scaled = pixels.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)
        return scaled.reshape(-1, *pixels.shape[-2:], 1)


def read_description(content: bytes, where: str) -> Description:
    """Reads the description of a .tflite file, and checks the file against its checksum.

    Args:
        where: the file's name, for messages.

    Raises:
        ModelError: the file is not TFLite, lacks the description or the checksum, is damaged, or describes no network
            that could be run.
    """
    if len(content) < 8 or content[4:8] != TFLITE_IDENTIFIER:
        raise ModelError(f"{where} is not a TFLite model", "export one with `hfnet-export`")
    try:
        start = _metadata(content, METADATA_NAME)
    except Exception as e:  # flatbuffers for Python has no verifier: damage shows as any exception
        raise ModelError(f"{where} is truncated or damaged ({type(e).__name__})", EXPORT_AGAIN) from e
    if start is None:
        raise ModelError(
            f"{where} is a TFLite model without hfnet-edge's description", "export it with `hfnet-export FILE`"
        )
    try:
        at = _checksum_at(content, start)
    except Exception as e:
        raise ModelError(f"{where} is truncated or damaged ({type(e).__name__})", EXPORT_AGAIN) from e
    if at is None:
        raise ModelError(f"{where} has no checksum, so damage to it would go unnoticed", EXPORT_AGAIN)
    if _checksum(content, at) != content[at : at + len(UNSEALED)]:
        raise ModelError(f"{where} is damaged (checksum)", f"copy it again, or {EXPORT_AGAIN}")
    try:
        t = ModelDescriptionT.InitFromObj(ModelDescription.GetRootAs(content, start))
        description = Description(
            _text(t.architecture),
            _text(t.weightsHash),
            _text(t.precision),
            (t.inputHeight, t.inputWidth),
            (t.inputLow, t.inputHigh),
            t.localDim,
            t.globalDim,
            t.nmsRadius,
            {_text(o.role): _text(o.name) for o in t.outputs or []},
            tuple(_text(line) for line in t.toolchain or []),
            _text(t.detector) or NETWORK,
        )
    except Exception as e:
        raise ModelError(f"{where}: its description is damaged ({type(e).__name__})", EXPORT_AGAIN) from e
    wrong = _what_is_wrong(description)
    if wrong:
        raise ModelError(f"{where}: {wrong}", EXPORT_AGAIN)
    return description


def sealed(content: bytes) -> bytes:
    """The same file with its checksum, in the place that its description keeps for it (`UNSEALED`).

    Raises:
        ModelError: there is no such place.
    """
    start = _metadata(content, METADATA_NAME)
    at = None if start is None else _checksum_at(content, start)
    if at is None:
        raise ModelError("the model's description has no place for a checksum", "update flatbuffers")
    return content[:at] + _checksum(content, at) + content[at + len(UNSEALED) :]


def _checksum(content: bytes, at: int) -> bytes:
    """64 hex digits over the whole file, those at ``at`` as zeros."""
    view, found = memoryview(content), hashlib.sha256()
    for part in (view[:at], UNSEALED.encode(), view[at + len(UNSEALED) :]):
        found.update(part)
    return found.hexdigest().encode()


def _checksum_at(content: bytes, start: int) -> int | None:
    """Where the digits of the checksum stand; None: the description that begins at ``start`` has none."""
    from flatbuffers import table

    t: table.Table = ModelDescription.GetRootAs(content, start)._tab
    o = t.Offset(4 + 2 * CHECKSUM_FIELD)
    if not o:
        return None
    at, length = t.Vector(o), t.VectorLen(o)
    if length != len(UNSEALED) or not start <= at <= len(content) - length:
        raise ValueError("a checksum of another length")
    return at


def _what_is_wrong(d: Description) -> str:
    """The first field out of its bounds; "" where none is."""
    names = (d.architecture, d.weights_hash, d.precision, *d.outputs.values(), *d.toolchain)
    if not all(len(name) <= MAX_TEXT and name.isascii() and name.isprintable() for name in names):
        return f"a name in its description is longer than {MAX_TEXT} characters, or not of printable ASCII"
    if not re.fullmatch("[0-9a-f]{32}", d.weights_hash):
        return f"its weights' hash {d.weights_hash!r} is not 32 hexadecimal digits"
    if d.precision not in PRECISIONS:
        return f"its precision is {d.precision!r}, not one of {', '.join(PRECISIONS)}"
    optional = {*FINER_ROLES, HYPERCOLUMN_ROLE}
    needed = d.outputs.keys() - optional if d.kind == IMAGE else d.outputs.keys()
    alone = [{PATCH_ROLE}, {SCENE_ROLE}, {GLOBAL_ROLE}]
    if needed not in [*alone, *({role, *DESCRIPTOR_ROLES} for role in KEYPOINT_ROLES)]:
        return (
            f"its outputs are {sorted(d.outputs)[:8]}; an HF-Net has {' or '.join(KEYPOINT_ROLES)}, and "
            f"{' and '.join(DESCRIPTOR_ROLES)}, may have {' and '.join([*FINER_ROLES, HYPERCOLUMN_ROLE])}; "
            f"a patch network has {PATCH_ROLE}, a scene network {SCENE_ROLE}, a retrieval network {GLOBAL_ROLE}"
        )
    if d.kind == SCENE:
        if d.input_size not in ((1, d.local_dim), (1, d.local_dim + 2)):  # the number of an image too
            return f"it takes rows of {d.input_size}, not of its {d.local_dim} dimensions"
    elif not all(CELL <= side <= MAX_SIDE and side % CELL == 0 for side in d.input_size):
        return f"its input is {d.input_size[0]}x{d.input_size[1]}, not multiples of {CELL} up to {MAX_SIDE}"
    if d.kind == PATCHES and d.input_size != (SIDE, SIDE):
        return f"it takes patches of {d.input_size[0]}x{d.input_size[1]}, not {SIDE}x{SIDE}"
    low, high = d.input_range
    if not (math.isfinite(high - low) and -MAX_LEVEL <= low < high <= MAX_LEVEL):
        return f"its input range is {low} to {high}"
    locals_ = (0, 0) if d.kind == RETRIEVAL else (1, MAX_LOCAL_DIM)
    globals_ = (1, MAX_GLOBAL_DIM) if GLOBAL_ROLE in d.outputs else (0, 0)
    if not (locals_[0] <= d.local_dim <= locals_[1] and globals_[0] <= d.global_dim <= globals_[1]):
        return f"its descriptors have {d.local_dim} (local) and {d.global_dim} (global) dimensions"
    if not 0 <= d.nms_radius <= MAX_NMS_RADIUS:
        return f"its radius of non-maximum suppression is {d.nms_radius}, not 0 to {MAX_NMS_RADIUS}"
    if d.detector not in DETECTORS:
        return f"its detector is {d.detector[:MAX_TEXT]!r}, not one of {', '.join(DETECTORS)}"
    if len(d.toolchain) > MAX_LINES:
        return f"its toolchain has {len(d.toolchain)} lines"
    return ""


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


def _metadata(content: bytes, name: str) -> int | None:
    """Where the metadata of this name begins in a .tflite file; None: nowhere.

    It walks TFLite's schema by hand, so that the runtime needs no generated code for it: Model.metadata (field 6) holds
    tables of name (0) and buffer index (1) into Model.buffers (4), whose data is field 0.
    """
    from flatbuffers import encode, number_types, packer, table

    def follow(t: table.Table, field: int) -> int:
        return t.Offset(4 + 2 * field)

    root = table.Table(content, encode.Get(packer.uoffset, content, 0))

    def rows(field: int) -> list[table.Table]:
        o = follow(root, field)
        if not o:
            return []
        start, n = root.Vector(o), root.VectorLen(o)
        if not 0 <= n <= len(content) // 4:
            raise ValueError("a vector is longer than the file")
        return [table.Table(content, root.Indirect(start + 4 * i)) for i in range(n)]

    for row in rows(6):
        if _text(row.String(follow(row, 0) + row.Pos)) == name:
            index = row.Get(number_types.Uint32Flags, follow(row, 1) + row.Pos) if follow(row, 1) else 0
            buffer = rows(4)[index]
            o = follow(buffer, 0)
            start, n = buffer.Vector(o), buffer.VectorLen(o)
            if not 0 <= start < start + n <= len(content):
                raise ValueError("a buffer ends past the file")
            return start
    return None
