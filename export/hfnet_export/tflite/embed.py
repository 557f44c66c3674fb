"""The description that a model file carries: written into it, with the versions of the tools that made it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import flatbuffers
import keras
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from hfnet_edge.errors import ModelError
from hfnet_edge.networks.description import METADATA_NAME, NETWORK, UNSEALED, Description, read_description, sealed
from hfnet_edge.schema.description_generated import ModelDescriptionT, OutputT
from hfnet_export.tflite.graph import UPGRADE, Graph, pack


def embed(graph: Graph, description: Description) -> bytes:
    """The same model with ``description`` as metadata and a checksum, as
    `hfnet_edge.networks.description.read_description` reads it.

    Raises:
        ModelError: a field is out of its bounds, or does not come back as it went in.
    """
    t = ModelDescriptionT()
    t.architecture, t.weightsHash, t.precision = (
        description.architecture,
        description.weights_hash,
        description.precision,
    )
    t.inputHeight, t.inputWidth = description.input_size
    t.inputLow, t.inputHigh = description.input_range
    t.localDim, t.globalDim, t.nmsRadius = description.local_dim, description.global_dim, description.nms_radius
    t.outputs = [OutputT(role, name) for role, name in description.outputs.items()]
    t.toolchain, t.checksum = list(description.toolchain), UNSEALED
    t.detector = None if description.detector == NETWORK else description.detector  # as files of before have it
    builder = flatbuffers.Builder()
    builder.Finish(t.Pack(builder))

    model = graph.copy()
    kept = [row for row in model.metadata or [] if row.name != METADATA_NAME.encode()]
    model.metadata = [*kept, schema.MetadataT(METADATA_NAME, len(model.buffers))]
    model.buffers.append(schema.BufferT(data=bytes(builder.Output())))
    described = sealed(pack(model))
    if read_description(described, "the new model") != description:
        raise ModelError("the model's description does not read back", UPGRADE)
    return described


def toolchain() -> tuple[str, ...]:
    """``name version`` of everything that shapes a model file."""
    lines = [f"tensorflow {tf.__version__}", f"keras {keras.__version__}"]
    for name in ("ai-edge-quantizer", "ai-edge-litert", "hfnet-edge"):
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:  # run from a checkout
            continue
    return tuple(lines)
