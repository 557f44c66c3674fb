"""HF-Nets in ONNX files, which onnx2tf converts once they are cut to what is needed of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_export.networks import processors
from hfnet_export.networks.any_hfnet import check_values
from hfnet_export.sources import onnx_env
from hfnet_export.sources.foreign import ForeignHFNet, short
from hfnet_export.sources.onnx_colours import sum_colours
from hfnet_export.sources.roles import COLOUR, GREY, Found, Tensor, channel_axis, find_roles, image_shape
from hfnet_export.sources.shapes import fed, in_shape, shapes_of
from hfnet_export.tflite.convert import check_converted
from hfnet_export.tflite.graph import INPUT
from hfnet_export.trained import Converted, Outputs, Say

MAX_OPSET = 17  # onnx2tf fails on the reductions of 18, whose axes are an input


@dataclass(frozen=True)
class OnnxFile(ForeignHFNet):
    """An .onnx file."""

    def convert(self, say: Say) -> Converted:
        say(1, f"reading {self.path}")
        import onnx
        import onnxruntime

        path = self.path
        try:
            model = onnx.load(path, load_external_data=False)
            beside = {e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"}
            model = onnx.load(path)
            onnx.checker.check_model(model)
            session, processor = processors.onnx_session(path, onnxruntime)
        except Exception as e:
            raise InputError(f"{path} is not an ONNX file that can be read: {short(e)}", "export it again") from e
        weights = {tensor.name for tensor in model.graph.initializer}
        images = [value for value in model.graph.input if value.name not in weights]
        shape = image_shape([_onnx_tensor(value) for value in images], self.input_size, str(path))
        model = _with_fixed_size(model, shape)
        found = find_roles(
            [_onnx_tensor(value) for value in model.graph.output], self.input_size, str(path), self.outputs
        )
        description = self.describe(
            found, [path.parent / name for name in sorted(beside)], [onnx_env.PINS[0].replace("==", " ")]
        )
        shapes = shapes_of(description)
        model = _onnx_network(model, shape, found, shapes)
        tensors = [
            *model.graph.initializer,
            *(a.t for n in model.graph.node if n.op_type == "Constant" for a in n.attribute),
        ]
        parameters = sum(
            math.prod(t.dims) for t in tensors if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1
        )
        self.say_converting(say, parameters, " with onnx2tf")
        content = onnx_env.convert_onnx(model.SerializeToString(), channel_axis(shape) == 3, lambda text: say(2, text))
        graph = check_converted(content, parameters, shapes)

        def original(image: np.ndarray) -> Outputs:
            names = [f.name for f in found.values()]
            outputs = session.run(names, {images[0].name: fed(np, image, shape)})
            return {r: in_shape(np, o, f, shapes[r]) for (r, f), o in zip(found.items(), outputs, strict=True)}

        return Converted(graph, description, parameters, original, processor, check=check_values)


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
    if shape[axis] == COLOUR and not sum_colours(graph, original):
        graph.node.insert(0, helper.make_node("Concat", [INPUT] * COLOUR, ["colours"], axis=axis))
        fed = "colours"
    else:
        fed = INPUT
    for node in graph.node:
        node.input[:] = [fed if name == original else name for name in node.input]
    grey = [GREY if i == axis else size for i, size in enumerate(shape)]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, grey))
    for role, f in found.items():
        x = f"original/{f.name}"
        if f.channels_first:
            _, h, w, d = shapes[role]
            reshape(x, (1, d, h, w), f"{role}/first")
            graph.node.append(helper.make_node("Transpose", [f"{role}/first"], [f"{role}/last"], perm=(0, 2, 3, 1)))
            x = f"{role}/last"
        reshape(x, shapes[role], role)
        graph.output.append(helper.make_tensor_value_info(role, TensorProto.FLOAT, shapes[role]))
    model = onnx.utils.Extractor(model).extract_model([INPUT], list(found))
    if any(opset.domain in ("", "ai.onnx") and opset.version > MAX_OPSET for opset in model.opset_import):
        with suppress(Exception):  # it does not know every operator; onnx2tf may do without
            model = onnx.version_converter.convert_version(model, MAX_OPSET)
    model.ir_version = min(model.ir_version, 10)  # onnx2tf's packages are older than ours
    return model


def _onnx_tensor(value: Any) -> Tensor:
    dims = value.type.tensor_type.shape.dim
    return Tensor(value.name, tuple(d.dim_value if d.HasField("dim_value") else None for d in dims))
