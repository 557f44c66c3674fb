"""What `hfnet-export` takes: our weights, or an HF-Net of somebody else as Keras file, SavedModel or ONNX file.

Each format has one function here that makes a `Source`: the network as a float32 .tflite with one input, `image`
(1, H, W, 1), and one output for each role, named by it and in its shape. The steps after that are the same for all.
"""

from __future__ import annotations

import hashlib
import math
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from hfnet_edge.errors import InputError, ModelError
from hfnet_edge.networks.description import Description
from hfnet_edge.networks.model import output_shapes
from hfnet_edge.shell.files import open_input
from hfnet_edge.shell.quiet import quiet
from hfnet_export.networks.weights import BUNDLED, fold_pca, hfnet_from_weights, load_weights
from hfnet_export.sources.onnx_env import PINS, convert_onnx
from hfnet_export.sources.roles import COLOUR, GREY, Found, Tensor, channel_axis, find_roles, image_shape
from hfnet_export.tflite import convert
from hfnet_export.tflite.calibration import photos

KERAS, SAVED_MODEL, ONNX, WEIGHTS = "Keras file", "SavedModel", "ONNX file", "weights"
SUFFIXES = {".npz": WEIGHTS, ".keras": KERAS, ".h5": KERAS, ".hdf5": KERAS, ".onnx": ONNX}
MIN_SIDE, MAX_SIDE = 64, 4096  # of an input
MAX_REFERENCES = 1000  # photos that a PCA is learnt from
# A reference is float32: recent GPUs else round the factors of its products to TF32's 10 bits.
tf.config.experimental.enable_tensor_float_32_execution(False)
ONNX_GPUS: dict[str, dict[str, int]] = {
    "CUDAExecutionProvider": {"use_tf32": 0},
    "ROCMExecutionProvider": {},
    "DmlExecutionProvider": {},
}
MAX_OPSET = 17  # onnx2tf fails on the reductions of 18, whose axes are an input

Say = Callable[[int, str], None]
Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Source:
    """A network, converted to TFLite in float32.

    Attributes:
        content: the .tflite, without its description.
        description: with precision "none".
        parameters: number of weights, for `convert.check_size`.
        reference: the original on one input, (1, H, W, 1) float32: outputs by role, batch of 1 included.
        processor: that the original runs on: "CPU, TensorFlow", "GPU, ONNX Runtime CUDA", ...
    """

    content: bytes
    description: Description
    parameters: int
    reference: Callable[[np.ndarray], Outputs]
    processor: str


@dataclass(frozen=True)
class Foreign:
    """What the user says of a network that is not ours.

    Attributes:
        path: of the file or folder.
        input_size: height, width.
        input_range: what it expects for grey levels 0 and 255.
        outputs: role to name of an output, where names and shapes leave it open.
    """

    path: Path
    input_size: tuple[int, int]
    input_range: tuple[float, float]
    outputs: Mapping[str, str]

    def describe(
        self, found: Mapping[str, Found], more_files: Sequence[Path] = (), tools: Sequence[str] = ()
    ) -> Description:
        """Its description: the outputs are named by their roles. ``more_files`` hold weights too."""
        return Description(
            architecture=architecture_of(self.path),
            weights_hash=content_hash([self.path, *more_files]),
            precision="none",
            input_size=self.input_size,
            input_range=self.input_range,
            local_dim=found["local_descriptors"].width,
            global_dim=found["global_descriptor"].width,
            nms_radius=convert.NMS_RADIUS,
            outputs={role: role for role in found},
            toolchain=(*convert.toolchain(), *tools),
        )


def architecture_of(path: Path) -> str:
    """What a network in this file is called, in printable ASCII, as names in maps are: without accents, and without
    characters that then are none of it."""
    ascii_ = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode()
    return f"custom-{''.join(c for c in ascii_ if c.isprintable()) or 'network'}"


def kind_of(path: Path) -> str:
    """`KERAS`, `SAVED_MODEL`, `ONNX` or `WEIGHTS`, by suffix. Raises InputError: none of them, or not there."""
    if os.path.isdir(path):
        if (path / "saved_model.pb").is_file():
            return SAVED_MODEL
        raise InputError(f"{path} is a folder without a saved_model.pb", "give the folder of a TensorFlow SavedModel")
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"cannot export {path}: its format is not known",
            "give `hfnet`, an .npz of hfnet-distill, a .keras, .h5 or .onnx file, or a SavedModel folder",
        )
    kind = SUFFIXES[path.suffix.lower()]
    if kind != WEIGHTS and not os.path.isfile(path):  # nor a pipe
        raise InputError(f"there is no file {path}", "check its name")
    return kind


def check_input_size(input_size: tuple[int, int]) -> None:
    """The network can have an input of this height and width. Raises InputError."""
    if any(side % 32 or not MIN_SIDE <= side <= MAX_SIDE for side in input_size):
        raise InputError(
            f"--input-size {input_size[0]}x{input_size[1]} is not possible",
            f"give HEIGHTxWIDTH, multiples of 32 from {MIN_SIDE} to {MAX_SIDE}",
        )


def read_source(
    path: Path,
    input_size: tuple[int, int],
    global_dim: int | None = None,
    references: Path | None = None,
    input_range: tuple[float, float] | None = None,
    outputs: Mapping[str, str] | None = None,
    say: Say = lambda *_: None,
) -> Source:
    """Reads a network and converts it to float32 TFLite.

    Args:
        path: our weights (.npz), a Keras file (.keras, .h5), a SavedModel folder or an .onnx file.
        input_size: height, width; multiples of 32 from `MIN_SIDE` to `MAX_SIDE`.
        global_dim: dimensions of the global descriptor to keep; of our weights only.
        references: folder of photos, more than ``global_dim``, whose PCA decides these dimensions.
        input_range: grey levels 0 and 255 as the network expects them; of the other formats, which do not tell.
        outputs: role to name of an output; of the other formats.
        say: called with 1 and with 2 and what is done next.

    Raises:
        InputError: the file is missing or damaged, or an option does not go with it.
        ModelError: the network is not an HF-Net, or the conversion went wrong.
        InstallError: onnx2tf is needed and cannot be installed.
    """
    check_input_size(input_size)
    kind = kind_of(path)
    if kind == WEIGHTS:
        if input_range is not None or outputs:
            option = "--outputs" if input_range is None else "--input-range"
            raise InputError(f"{option} is not for HF-Net weights", "leave it out: these weights have only one")
        return _from_weights(path, input_size, global_dim, references, say)
    if input_range is None:
        raise InputError(
            f"the grey range that {path} was trained with is not in the file",
            "give it: --input-range 0,255 for the public HF-Net, else 0,1 or -1,1",
        )
    if global_dim is not None or references is not None:
        raise InputError(
            f"--global-dim and --pca are not for {path}: only hfnet-distill's weights have the best dimensions first",
            "leave it out",
        )
    say(1, f"reading {path}")
    read = {KERAS: _from_keras, SAVED_MODEL: _from_saved_model, ONNX: _from_onnx}[kind]
    return read(Foreign(path, input_size, input_range, outputs or {}), say)


def _from_weights(
    path: Path, input_size: tuple[int, int], global_dim: int | None, references: Path | None, say: Say
) -> Source:
    config, _, _ = load_weights(path)
    config = replace(config, global_dim=config.global_dim if global_dim is None else global_dim)
    origin = "bundled weights" if path == BUNDLED else str(path)
    say(1, f"building HF-Net from {origin} ({config.local_dim}-D local, {config.global_dim}-D global)")
    network, weights_hash = hfnet_from_weights(path, input_size, config.global_dim, batch=1)
    if references is not None:
        weights_hash = fold_pca(network, path, photos(references, input_size, MAX_REFERENCES))
    parameters = convert.parameter_count(network)
    _say_converting(say, parameters, input_size)
    content = convert.to_float_tflite(network)
    description = convert.describe(config, weights_hash, "none", input_size)
    return Source(
        content, description, parameters, lambda image: network(image, training=False), _tensorflow_processor()
    )


def _from_keras(foreign: Foreign, say: Say) -> Source:
    path = foreign.path
    try:
        with quiet():
            model = keras.saving.load_model(path, compile=False)
            inputs = [Tensor(t.name, tuple(t.shape)) for t in model.inputs]
            output = model.output
            names = model.output_names
    except Exception as e:  # Keras raises whatever it likes
        raise InputError(
            f"{path} is not a Keras model that can be read here: {_short(e)}",
            "save it with Keras 3 and layers of Keras only, or with model.export(FOLDER) as SavedModel",
        ) from e

    def call(image: tf.Tensor) -> dict[str, tf.Tensor]:
        result = model(image, training=False)
        return dict(result) if isinstance(output, dict) else dict(zip(names, tf.nest.flatten(result), strict=True))

    return _from_function(foreign, inputs, call, str(path), say)


def _from_saved_model(foreign: Foreign, say: Say) -> Source:
    path = foreign.path
    try:
        with quiet():
            loaded = tf.saved_model.load(str(path))
            signatures = dict(loaded.signatures)
    except Exception as e:
        raise InputError(
            f"{path} is not a SavedModel that TensorFlow {tf.__version__} can read: {_short(e)}", "save it again"
        ) from e
    if not signatures:
        raise ModelError(f"{path} has no signature", "save it with model.export(FOLDER)")
    order = sorted(signatures, key=lambda key: (key != convert.SIGNATURE, key))
    first_error: ModelError | None = None
    for key in order:  # the first that is an HF-Net
        signature = signatures[key]
        inputs = [Tensor(name, _static(spec.shape)) for name, spec in signature.structured_input_signature[1].items()]

        def call(image: tf.Tensor, signature: Any = signature) -> dict[str, tf.Tensor]:
            (name,) = signature.structured_input_signature[1]
            return signature(**{name: image})

        try:
            return _from_function(foreign, inputs, call, f"signature {key} of {path}", say)
        except ModelError as e:
            first_error = first_error or e
    assert first_error is not None
    raise first_error


def _from_function(
    foreign: Foreign,
    inputs: Sequence[Tensor],
    call: Callable[[tf.Tensor], dict[str, tf.Tensor]],
    where: str,
    say: Say,
) -> Source:
    """From a TensorFlow function of an image to outputs by name."""
    shape = image_shape(inputs, foreign.input_size, where)
    grey = tf.TensorSpec((1, *foreign.input_size, 1), tf.float32, convert.INPUT)
    try:
        with quiet():
            original = tf.function(lambda image: call(_fed(tf, image, shape)), input_signature=[grey])
            traced = original.get_concrete_function()
            # Constants instead of variables, which the converter may lose. Sizes follow from that of the image.
            frozen = convert_variables_to_constants_v2(traced)
    except Exception as e:
        raise ModelError(f"{where} does not take an image of {shape}: {_short(e)}", "export it again") from e
    tensors = dict(zip(sorted(traced.structured_outputs), frozen.outputs, strict=True))
    listed = [Tensor(name, _static(tensor.shape)) for name, tensor in tensors.items()]
    found = find_roles(listed, foreign.input_size, where, foreign.outputs)
    description = foreign.describe(found)
    shapes = _shapes(description)
    pruned = frozen.prune(frozen.inputs, [tensors[f.name] for f in found.values()])

    @tf.function(input_signature=[grey])
    def network(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            role: _in_shape(tf, tensor, found[role], shapes[role])
            for role, tensor in zip(found, pruned(image), strict=True)
        }

    constants = [node.attr["value"].tensor for node in pruned.graph.as_graph_def().node if node.op == "Const"]
    parameters = sum(
        math.prod(d.size for d in t.tensor_shape.dim)
        for t in constants
        if t.dtype == tf.float32.as_datatype_enum and len(t.tensor_shape.dim) > 1
    )
    _say_converting(say, parameters, foreign.input_size)
    content = convert.function_to_float_tflite(network, parameters, shapes)

    def reference(image: np.ndarray) -> Outputs:
        outputs = traced(tf.constant(image))
        return {role: _in_shape(np, outputs[f.name].numpy(), f, shapes[role]) for role, f in found.items()}

    return Source(content, description, parameters, reference, _tensorflow_processor())


def _tensorflow_processor() -> str:
    """Where TensorFlow puts a network when nobody says where."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "CPU, TensorFlow"
    return f"GPU, TensorFlow {tf.config.experimental.get_device_details(gpus[0]).get('device_name', '')}".rstrip()


def _onnx_session(path: Path, onnxruntime: Any) -> tuple[Any, str]:
    """The model on the fastest processor that this ONNX Runtime has, and its name. A GPU that is listed but cannot be
    used falls back to the CPU without a word, so the session is asked."""
    listed = onnxruntime.get_available_providers()
    available = [(provider, options) for provider, options in ONNX_GPUS.items() if provider in listed]
    session = onnxruntime.InferenceSession(path, providers=[*available, ("CPUExecutionProvider", {})])
    used = session.get_providers()[0]
    return session, f"{'GPU' if used in ONNX_GPUS else 'CPU'}, ONNX Runtime {used.removesuffix('ExecutionProvider')}"


def _from_onnx(foreign: Foreign, say: Say) -> Source:
    import onnx
    import onnxruntime

    path = foreign.path
    try:
        model = onnx.load(path, load_external_data=False)
        beside = {e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"}
        model = onnx.load(path)
        onnx.checker.check_model(model)
        session, processor = _onnx_session(path, onnxruntime)
    except Exception as e:
        raise InputError(f"{path} is not an ONNX file that can be read: {_short(e)}", "export it again") from e
    weights = {tensor.name for tensor in model.graph.initializer}
    images = [value for value in model.graph.input if value.name not in weights]
    shape = image_shape([_onnx_tensor(value) for value in images], foreign.input_size, str(path))
    model = _with_fixed_size(model, shape)
    found = find_roles(
        [_onnx_tensor(value) for value in model.graph.output], foreign.input_size, str(path), foreign.outputs
    )
    description = foreign.describe(found, [path.parent / name for name in sorted(beside)], [PINS[0].replace("==", " ")])
    shapes = _shapes(description)
    model = _onnx_network(model, shape, found, shapes)
    tensors = [
        *model.graph.initializer,
        *(a.t for n in model.graph.node if n.op_type == "Constant" for a in n.attribute),
    ]
    parameters = sum(math.prod(t.dims) for t in tensors if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1)
    _say_converting(say, parameters, foreign.input_size, " with onnx2tf")
    content = convert_onnx(model.SerializeToString(), channel_axis(shape) == 3, lambda text: say(2, text))
    convert.check_converted(content, parameters, shapes)

    def reference(image: np.ndarray) -> Outputs:
        names = [f.name for f in found.values()]
        outputs = session.run(names, {images[0].name: _fed(np, image, shape)})
        return {r: _in_shape(np, o, f, shapes[r]) for (r, f), o in zip(found.items(), outputs, strict=True)}

    return Source(content, description, parameters, reference, processor)


def _with_fixed_size(model: Any, shape: tuple[int, ...]) -> Any:
    """An ONNX model for one size of image, with the shapes of its outputs that follow from it."""
    import onnx

    weights = {tensor.name for tensor in model.graph.initializer}
    (image,) = [value for value in model.graph.input if value.name not in weights]
    for dim, size in zip(image.type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = size
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _onnx_network(
    model: Any, shape: tuple[int, ...], found: Mapping[str, Found], shapes: Mapping[str, tuple[int, ...]]
) -> Any:
    """The part of an ONNX model between the image and the outputs that are needed, named and laid out as ours."""
    import onnx
    from onnx import TensorProto, helper

    weights = {tensor.name for tensor in model.graph.initializer}
    (image,) = [value.name for value in model.graph.input if value.name not in weights]
    model = onnx.compose.add_prefix(model, "original/")  # so that our names are free
    graph = model.graph

    def reshape(x: str, to: Sequence[int], y: str) -> None:
        graph.initializer.append(helper.make_tensor(f"{y}/shape", TensorProto.INT64, [len(to)], to))
        graph.node.append(helper.make_node("Reshape", [x, f"{y}/shape"], [y]))

    axis = channel_axis(shape)
    original = f"original/{image}"
    if shape[axis] == COLOUR and not _sum_colours(graph, original):
        graph.node.insert(0, helper.make_node("Concat", [convert.INPUT] * COLOUR, ["colours"], axis=axis))
        fed = "colours"
    else:
        fed = convert.INPUT
    for node in graph.node:
        node.input[:] = [fed if name == original else name for name in node.input]
    grey = [GREY if i == axis else size for i, size in enumerate(shape)]
    graph.input.append(helper.make_tensor_value_info(convert.INPUT, TensorProto.FLOAT, grey))
    for role, f in found.items():
        x = f"original/{f.name}"
        if f.channels_first:
            _, h, w, d = shapes[role]
            reshape(x, (1, d, h, w), f"{role}/first")
            graph.node.append(helper.make_node("Transpose", [f"{role}/first"], [f"{role}/last"], perm=(0, 2, 3, 1)))
            x = f"{role}/last"
        reshape(x, shapes[role], role)
        graph.output.append(helper.make_tensor_value_info(role, TensorProto.FLOAT, shapes[role]))
    model = onnx.utils.Extractor(model).extract_model([convert.INPUT], list(found))
    if any(opset.domain in ("", "ai.onnx") and opset.version > MAX_OPSET for opset in model.opset_import):
        with suppress(Exception):  # it does not know every operator; onnx2tf may do without
            model = onnx.version_converter.convert_version(model, MAX_OPSET)
    model.ir_version = min(model.ir_version, 10)  # onnx2tf's packages are older than ours
    return model


def _sum_colours(graph: Any, image: str) -> bool:
    """Gives an ONNX network one channel in place of three equal ones: kernels of the first convolution are summed.

    That is exact where nothing but scaling, the same for all channels, comes before it: padding is then the same in all
    three. It saves the device two thirds of the first layer. Elsewhere nothing is changed, and False returned.
    """
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    made: list[str] = []  # tensors that lose two channels
    x = image
    while True:
        users = [node for node in graph.node if x in node.input]
        if len(users) != 1 or x in {output.name for output in graph.output}:
            return False
        (node,) = users
        others = [name for name in node.input if name != x]
        if node.op_type == "Conv" and node.input[0] == x:
            break
        plain = node.op_type in ("Transpose", "Identity", "Cast")
        scaling = node.op_type in ("Mul", "Div", "Add", "Sub") and len(others) == 1 and others[0] in constants
        if not plain and not (scaling and math.prod(constants[others[0]].dims) == 1):
            return False
        x = node.output[0]
        made.append(x)
    if node.input[1] not in constants:
        return False
    kernels = numpy_helper.to_array(constants[node.input[1]])
    if kernels.ndim != 4 or kernels.shape[1] != COLOUR:  # in groups, for one
        return False
    node.input[1] = f"{node.input[1]}/summed"
    summed = kernels.sum(axis=1, keepdims=True, dtype=np.float64).astype(kernels.dtype)
    graph.initializer.append(numpy_helper.from_array(summed, node.input[1]))
    stale = [value for value in graph.value_info if value.name in made]
    for value in stale:
        graph.value_info.remove(value)
    return True


def _fed(library: Any, image: Any, shape: Sequence[int]) -> Any:
    """A grey image (1, H, W, 1) in the shape of a network's input; three equal channels where that is in colour.
    ``library`` is numpy or TensorFlow."""
    axis = channel_axis(shape)
    grey = library.reshape(image, [GREY if i == axis else size for i, size in enumerate(shape)])
    return grey if shape[axis] == GREY else library.concat([grey] * COLOUR, axis)


def _onnx_tensor(value: Any) -> Tensor:
    dims = value.type.tensor_type.shape.dim
    return Tensor(value.name, tuple(d.dim_value if d.HasField("dim_value") else None for d in dims))


def _in_shape(library: Any, x: Any, f: Found, shape: tuple[int, ...]) -> Any:
    """An output in the shape of its role, channels last. ``library`` is numpy or TensorFlow."""
    if f.channels_first:
        _, h, w, d = shape
        x = library.transpose(library.reshape(x, (1, d, h, w)), (0, 2, 3, 1))
    return library.reshape(x, shape)


def _shapes(description: Description) -> dict[str, tuple[int, ...]]:
    return {role: shape for role, shape in output_shapes(description).items() if role in description.outputs}


def _static(shape: tf.TensorShape) -> tuple[int | None, ...]:
    return (None,) if shape.rank is None else tuple(shape.as_list())


def content_hash(paths: Sequence[Path]) -> str:
    """32 hex digits over the bytes of files, and over the names and bytes of what is in folders."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(path).as_posix()} {file.stat().st_size}\n".encode())
            with open_input(file) as f:
                while block := f.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()[:32]


def _say_converting(say: Say, parameters: int, input_size: tuple[int, int], how: str = "") -> None:
    say(2, f"converting {parameters / 1e6:.1f} M weights to float32 TFLite{how}, {input_size[0]}x{input_size[1]}")


def _short(e: Exception) -> str:
    """The first lines of what a library says, which may be pages."""
    return " ".join(str(e).split())[:300] or type(e).__name__
