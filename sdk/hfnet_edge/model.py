"""A network: a .tflite file that carries its own description, run by LiteRT.

`ai_edge_litert` is used where it is installed, else `tflite_runtime`, which has the same Interpreter.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hfnet_edge.errors import MismatchError, ModelError
from hfnet_edge.keypoints import CELL, keypoint_scores
from hfnet_edge.map_file import LocalizationMap
from hfnet_edge.patches import SIDE
from hfnet_edge.quiet import quiet
from hfnet_edge.schema.description_generated import ModelDescription, ModelDescriptionT

METADATA_NAME = "HFNET_EDGE"
KEYPOINT_ROLES = ("keypoint_logits", "keypoint_scores")  # a network has one of them, and both of the others
DESCRIPTOR_ROLES = ("local_descriptors", "global_descriptor")
PATCH_ROLE = "patch_descriptors"  # of a patch network, which has no other
TFLITE_IDENTIFIER = b"TFL3"


@dataclass(frozen=True)
class Description:
    """What a model file says of itself (`schema/description.fbs`).

    Attributes:
        architecture: for people.
        weights_hash: 32 hex digits; the same weights at another precision or input size have the same hash.
        precision: "none" (float32), "fp16", "dynamic" or "int8".
        input_size: height, width in pixels.
        input_range: what grey levels 0 and 255 are mapped to.
        local_dim, global_dim: widths of the descriptors; a patch network has no global one: 0.
        nms_radius: of the keypoint decoding, pixels of the network's input; 0 of a patch network.
        outputs: role to name in the default signature.
        toolchain: versions that made the file.
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

    @property
    def of_patches(self) -> bool:
        """It is a patch network, for `hfnet_edge.patch_model.PatchModel`, not an HF-Net."""
        return PATCH_ROLE in self.outputs

    def scale(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W) or (N, H, W) uint8 grey levels to the network's input, (N, H, W, 1) float32 in ``input_range``."""
        low, high = self.input_range
        scaled = pixels.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)
        return scaled.reshape(-1, *pixels.shape[-2:], 1)


@dataclass(frozen=True)
class RawOutputs:
    """What the network returns for one image, dequantized to float32; h = H / 8, w = W / 8.

    Attributes:
        keypoint_logits: (h, w, 65), or None where the network returns ``keypoint_scores``: (H, W) in [0, 1], before
            or after non-maximum suppression.
        local_descriptors: (h, w, D), not normalised.
        global_descriptor: (G,), normalised or not.
    """

    local_descriptors: np.ndarray
    global_descriptor: np.ndarray
    keypoint_logits: np.ndarray | None = None
    keypoint_scores: np.ndarray | None = None

    def scores(self) -> np.ndarray:
        """(H, W) float32 keypoint scores, whichever of the two the network returns."""
        if self.keypoint_logits is not None:
            return keypoint_scores(self.keypoint_logits)
        assert self.keypoint_scores is not None, "read_description demands one of them"
        return self.keypoint_scores


class Network:
    """A loaded .tflite file with its description: what `Model` and `hfnet_edge.patch_model.PatchModel` share.

    Args:
        path: a .tflite file that `hfnet-export` wrote.
        threads: of the interpreter. The results do not depend on it.
        content: what the file would hold, where it is not written yet.

    Raises:
        ModelError: missing, truncated, not TFLite, without our description, or a network of the other kind.
    """

    of_patches = False
    batch = 1  # of the interpreter's input

    def __init__(self, path: Path | str, threads: int = 2, content: bytes | None = None):
        self.path = Path(path)
        if not 1 <= threads <= 64:  # LiteRT crashes on absurd numbers
            raise ModelError(f"{threads} threads are not between 1 and 64", "give the number of cores")
        try:
            content = self.path.read_bytes() if content is None else content
        except OSError as e:
            raise ModelError(f"cannot read the model {path}: {e.strerror}", "export one with `hfnet-export`") from e
        self.description = read_description(content, str(path))
        if self.description.of_patches != self.of_patches:
            kind = "a patch network" if self.description.of_patches else "an HF-Net"
            raise ModelError(
                f"{path} is {kind} ({self.description.architecture})",
                "--model takes an HF-Net, --patch-model a patch network (`hfnet-export crbnet`)",
            )
        interpreter_class = _interpreter_class()
        try:
            with quiet():
                self._interpreter = interpreter_class(model_content=content, num_threads=threads)
                (given,) = self._interpreter.get_input_details()
                if given["shape"][0] != self.batch:
                    self._interpreter.resize_tensor_input(given["index"], (self.batch, *given["shape"][1:]))
                self._interpreter.allocate_tensors()
            self._run = self._interpreter.get_signature_runner()
            (self._input,) = self._run.get_input_details()
            shapes = {name: tuple(d["shape"]) for name, d in self._run.get_output_details().items()}
        except Exception as e:  # the interpreter raises whatever it likes
            raise ModelError(f"{path} cannot be run: {e}", "export it again with `hfnet-export`") from e
        expected = output_shapes(self.description, self.batch)
        for role, name in self.description.outputs.items():
            if shapes.get(name) != expected[role]:
                raise ModelError(f"{path}: no output of shape {expected[role]} is its {role}", "export it again")

    @property
    def kernels(self) -> str:
        """ "XNNPACK" where the interpreter handed convolutions to it, else "builtin": their int8 differs by 2 steps."""
        nodes = self._interpreter._get_ops_details()
        return "XNNPACK" if any(node["op_name"] == "DELEGATE" for node in nodes) else "builtin"


class Model(Network):
    """A loaded HF-Net; arguments and errors as of `Network`."""

    def __call__(self, pixels: np.ndarray) -> RawOutputs:
        """Runs the network on one grey image (H, W) uint8 of the model's input size."""
        if pixels.shape != self.description.input_size or pixels.dtype != np.uint8:
            raise ValueError(f"expected {self.description.input_size} uint8, not {pixels.shape} {pixels.dtype}")
        outputs = self._run(**{self._input: self.description.scale(pixels)})
        return RawOutputs(**{role: outputs[name][0] for role, name in self.description.outputs.items()})


def output_shapes(description: Description, batch: int = 1) -> dict[str, tuple[int, ...]]:
    """The shape of each role's output, with the batch; also of the roles that this network lacks."""
    height, width = description.input_size
    h, w = height // CELL, width // CELL
    return {
        "keypoint_logits": (batch, h, w, CELL * CELL + 1),
        "keypoint_scores": (batch, height, width),
        "local_descriptors": (batch, h, w, description.local_dim),
        "global_descriptor": (batch, description.global_dim),
        PATCH_ROLE: (batch, description.local_dim),
    }


def check_match(model: Description, m: LocalizationMap, patches: Description | None = None) -> None:
    """The model may query this map: the same weights and widths; another precision is fine.

    Args:
        patches: of the patch network, for a map whose landmarks one describes.

    Raises:
        MismatchError: says which of them differs.
    """
    d, where = m.description, f"the map {m.path or ''}"
    if not d.weightsHash:
        raise MismatchError(
            f"{where} does not say which weights its features are of",
            "pack it again and name the model with --model",
        )
    if d.globalWeightsHash and patches is None:
        raise MismatchError(
            f"the landmarks of {where} are described by the patch network {d.architecture}",
            "name it too: --patch-model",
        )
    if patches is not None and not d.globalWeightsHash:
        raise MismatchError(
            f"{where} was built without a patch network",
            "leave --patch-model out, or build the map with `hfnet-map build --method parallel`",
        )
    local = patches or model
    for what, ours, theirs in (
        ("model", model.weights_hash, d.globalWeightsHash or d.weightsHash),
        ("patch model", local.weights_hash, d.weightsHash),
    ):
        if ours != theirs:
            raise MismatchError(
                f"{where} was built with weights {theirs}, the {what} has {ours}",
                "localize with the model that built the map, or build the map again with this one",
            )
    for name, a, b in (
        ("local", local.local_dim, d.localDim),
        ("global", model.global_dim, d.extractorGlobalDim),
    ):
        if a != b:
            raise MismatchError(
                f"{where} has {b}-D {name} descriptors, the model {a}-D",
                f"export the model with {b}-D {name} descriptors, or build the map again",
            )


def read_description(content: bytes, where: str) -> Description:
    """Finds our metadata in a .tflite file's bytes. Raises ModelError."""
    if len(content) < 8 or content[4:8] != TFLITE_IDENTIFIER:
        raise ModelError(f"{where} is not a TFLite model", "export one with `hfnet-export`")
    try:
        buffer = _metadata(content, METADATA_NAME)
    except Exception as e:  # flatbuffers for Python has no verifier: damage shows as any exception
        raise ModelError(f"{where} is truncated or damaged ({type(e).__name__})", "export it again") from e
    if buffer is None:
        raise ModelError(
            f"{where} is a TFLite model without hfnet-edge's description",
            "export it with `hfnet-export FILE`",
        )
    try:
        t = ModelDescriptionT.InitFromObj(ModelDescription.GetRootAs(buffer, 0))
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
        )
    except Exception as e:
        raise ModelError(f"{where}: its description is damaged ({type(e).__name__})", "export it again") from e
    if set(description.outputs) not in [{PATCH_ROLE}, *({role, *DESCRIPTOR_ROLES} for role in KEYPOINT_ROLES)]:
        raise ModelError(
            f"{where} has outputs {sorted(description.outputs)}",
            f"an HF-Net has {' or '.join(KEYPOINT_ROLES)}, and {' and '.join(DESCRIPTOR_ROLES)}; a patch network has "
            f"{PATCH_ROLE}",
        )
    if description.of_patches and description.input_size != (SIDE, SIDE):
        raise ModelError(f"{where} takes patches of {description.input_size}, not {(SIDE, SIDE)}", "export it again")
    return description


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


def _metadata(content: bytes, name: str) -> bytes | None:
    """Walks TFLite's schema by hand, so that the runtime needs no generated code for it: Model.metadata (field 6) holds
    tables of name (0) and buffer index (1) into Model.buffers (4), whose data is field 0."""
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
            if start < 0 or start + n > len(content):
                raise ValueError("a buffer ends past the file")
            return content[start : start + n]
    return None


def _interpreter_class():
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError as e:
            raise ModelError("no TFLite runtime is installed", "pip install ai-edge-litert") from e
    return Interpreter
