"""Damaged model files: refused by name, before LiteRT sees a byte, because LiteRT may end the process over them.

`schema_mutant(number)` and `block_mutant(number)` are always the same files, so what fails names itself.
"""

from __future__ import annotations

import copy
from functools import cache

import flatbuffers
import numpy as np
import pytest

pytest.importorskip("tensorflow")

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from hfnet_edge.errors import ModelError
from hfnet_edge.networks.description import METADATA_NAME, UNSEALED, read_description, sealed
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.schema.description_generated import ModelDescriptionT, OutputT

SCHEMA_MUTANTS, BLOCK_MUTANTS = 150, 300
NUMBERS = [0, 1, -1, 2, 7, 127, 128, 255, 1000, 2**15, 2**16, 2**31 - 1, -(2**31)]


@pytest.fixture(scope="module")
def victim(kit):
    """The bundled network at int8, and its parsed graph with hollow weights, which packs fast."""
    content = kit.int8.read_bytes()
    graph = flatbuffer_utils.read_model_from_bytearray(content)
    of_description = next(m.buffer for m in graph.metadata if m.name == METADATA_NAME.encode())
    for i, buffer in enumerate(graph.buffers):
        if i != of_description and buffer.data is not None:
            buffer.data = buffer.data[:16]
    return content, graph


def packed(graph: schema.ModelT) -> bytes:
    return bytes(flatbuffer_utils.convert_object_to_bytearray(graph))


def refused(content: bytes) -> str:
    """What the error says; the file gets no further than the checks."""
    with pytest.raises(ModelError) as caught:
        Model("victim.tflite", content=content)
    assert "victim.tflite" in str(caught.value) and caught.value.remedy
    return str(caught.value)


# --- By chance --------------------------------------------------------------------------------------------------------


def schema_mutant(graph: schema.ModelT, number: int) -> bytes:
    """A valid flatbuffer with one field of its graph changed: a number, an entry of a list, a name, a table gone."""
    rng = np.random.default_rng(number)
    node = mutant = copy.deepcopy(graph)
    while True:
        fields = [key for key, value in vars(node).items() if value is not None]
        key = fields[rng.integers(len(fields))]
        value = getattr(node, key)
        if isinstance(value, list | np.ndarray) and len(value):
            at = int(rng.integers(len(value)))
            if hasattr(value[at], "__dict__"):
                if rng.random() < 0.1:
                    setattr(node, key, [*value[:at], *value[at + 1 :]])
                    return packed(mutant)
                node = value[at]
                continue
            changed = np.array(value)
            if changed.dtype.kind in "iu":
                changed[at] = np.array(NUMBERS[rng.integers(len(NUMBERS))]).astype(changed.dtype)
            else:
                changed[at] = (np.nan, np.inf, -1e30, 0)[rng.integers(4)]
            setattr(node, key, changed)
        elif hasattr(value, "__dict__"):
            if rng.random() < 0.9:
                node = value
                continue
            setattr(node, key, None)
        elif isinstance(value, bool):
            setattr(node, key, not value)
        elif isinstance(value, int):
            setattr(node, key, NUMBERS[rng.integers(9)] % 128)
        elif isinstance(value, bytes | str):
            setattr(node, key, "another name")
        else:
            setattr(node, key, None)
        return packed(mutant)


def block_mutant(content: bytes, number: int) -> bytes:
    """A block zeroed, of noise, moved, cut out, or a bit flipped."""
    rng = np.random.default_rng(number)
    at, size = int(rng.integers(len(content))), int(2 ** rng.uniform(0, 17))
    after = content[at + size :]
    block = content[at : at + size]
    kind = number % 5
    if kind == 0:
        return content[:at] + bytes(len(block)) + after
    if kind == 1:
        return content[:at] + rng.integers(0, 256, len(block), np.uint8).tobytes() + after
    if kind == 2:
        other = int(rng.integers(len(content)))
        return content[:at] + content[other : other + len(block)].ljust(len(block), b"\1") + after
    if kind == 3:
        return content[:at] + after
    return content[:at] + bytes([content[at] ^ 1 << rng.integers(8)]) + content[at + 1 :]


def survive_schema_mutants(graph: schema.ModelT, numbers: range) -> int:
    whole = packed(graph)
    tried = 0
    for number in numbers:
        try:
            content = schema_mutant(graph, number)
        except Exception:  # the change cannot be written as a flatbuffer
            continue
        if content != whole:
            tried += 1
            refused(content)
    return tried


def survive_block_mutants(content: bytes, numbers: range) -> int:
    tried = 0
    for number in numbers:
        mutant = block_mutant(content, number)
        if mutant != content:
            tried += 1
            refused(mutant)
    return tried


def test_schema_mutants_are_refused(victim):
    assert survive_schema_mutants(victim[1], range(SCHEMA_MUTANTS)) > 0.7 * SCHEMA_MUTANTS


def test_block_mutants_are_refused(victim):
    content = victim[0]
    read_description(content, "the victim")
    small = sealed(packed_with(victim[1], b""))
    read_description(small, "the small one")
    assert survive_block_mutants(small, range(BLOCK_MUTANTS)) > 0.7 * BLOCK_MUTANTS
    assert survive_block_mutants(content, range(20)) > 10


@pytest.mark.slow
def test_many_mutants_are_refused(victim):
    content, graph = victim
    assert survive_schema_mutants(graph, range(10**6, 10**6 + 2600)) >= 2000
    assert survive_block_mutants(content, range(10**6, 10**6 + 1300)) >= 1000


# --- By hand ----------------------------------------------------------------------------------------------------------


@cache
def fields() -> dict:
    return {
        "architecture": "hfnet", "weightsHash": "0" * 32, "precision": "int8", "inputHeight": 288, "inputWidth": 384,
        "inputLow": -1.0, "inputHigh": 1.0, "localDim": 128, "globalDim": 512, "nmsRadius": 4,
        "toolchain": ["tensorflow 2.21.0"], "checksum": UNSEALED,
        "outputs": {role: role for role in ("keypoint_logits", "local_descriptors", "global_descriptor")},
    }  # fmt: skip


def described(**changes) -> bytes:
    """A description in which some fields are others."""
    t = ModelDescriptionT()
    for key, value in (fields() | changes).items():
        setattr(t, key, [OutputT(*pair) for pair in value.items()] if key == "outputs" else value)
    builder = flatbuffers.Builder()
    builder.Finish(t.Pack(builder))
    return bytes(builder.Output())


def packed_with(graph: schema.ModelT, description: bytes) -> bytes:
    """The graph with another description; with its own for b""."""
    if not description:
        description = described()
    changed = copy.copy(graph)
    at = next(m.buffer for m in graph.metadata if m.name == METADATA_NAME.encode())
    changed.buffers = list(graph.buffers)
    changed.buffers[at] = schema.BufferT(data=description)
    return packed(changed)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"nmsRadius": 1000}, "radius of non-maximum suppression is 1000"),
        ({"nmsRadius": -1}, "radius of non-maximum suppression is -1"),
        ({"inputHigh": float("nan")}, "input range is -1.0 to nan"),
        ({"inputLow": float("-inf")}, "input range is -inf"),
        ({"inputLow": 1.0}, "input range is 1.0 to 1.0"),
        ({"inputHigh": 1e30}, "input range"),
        ({"inputHeight": 0}, "input is 0x384"),
        ({"inputHeight": 289}, "input is 289x384"),
        ({"inputWidth": 1 << 30}, "input is 288x1073741824"),
        ({"localDim": 1041}, "1041 .local."),
        ({"localDim": 0}, "0 .local."),
        ({"localDim": -128}, "-128 .local."),
        ({"globalDim": 0}, "0 .global."),
        ({"globalDim": 4097}, "4097 .global."),
        ({"precision": "int4"}, "precision is 'int4'"),
        ({"weightsHash": ""}, "hash '' is not 32"),
        ({"weightsHash": "Z" * 32}, "is not 32 hexadecimal digits"),
        ({"weightsHash": "\x1b[2J" + "0" * 28}, "not of printable ASCII"),
        ({"architecture": "größe"}, "not of printable ASCII"),
        ({"architecture": "a" * 201}, "longer than 200"),
        ({"toolchain": ["x"] * 65}, "toolchain has 65 lines"),
        ({"outputs": {"keypoint_logits": "a"}}, "its outputs are"),
        ({"outputs": {"patch_descriptors": "a"}, "globalDim": 0}, "takes patches of 288x384"),
        ({"checksum": None}, "no checksum"),
        ({"checksum": "0" * 63}, "damaged"),
    ],
)
def test_every_field_of_the_description_has_a_bound(victim, changes, says):
    content = packed_with(victim[1], described(**changes))
    with pytest.raises(ModelError, match=says):
        read_description(sealed(content) if changes.get("checksum", UNSEALED) == UNSEALED else content, "a model")


def test_a_file_says_what_its_graph_is_not(victim):
    """A description of another input size, right in itself: the graph is asked."""
    t = fields() | {"inputHeight": 480}
    content = victim[0]
    graph = flatbuffer_utils.read_model_from_bytearray(content)
    with pytest.raises(ModelError, match=r"takes \(1, 288, 384, 1\), and says 480x384"):
        Model("a model", content=sealed(packed_with(graph, described(**t))))


def test_what_is_written_reads_back_to_the_last_field(victim):
    description = read_description(sealed(packed_with(victim[1], described(nmsRadius=64))), "a model")
    assert description.nms_radius == 64 and description.input_range == (-1.0, 1.0)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x1c\0\0\0TFL3", b"\xff" * 4 + b"TFL3" + b"\xff" * 100])
def test_what_is_no_model_is_refused(content):
    refused(content)
