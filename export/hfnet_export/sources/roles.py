"""What the tensors of somebody else's network are: by their shapes, where those do not decide by their names.

Public HF-Net exports differ in names, in layout, and in what they return beside the three outputs that are needed
here (sparse keypoints, scores and descriptors; the logits; score maps before and after suppression).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hfnet_edge.errors import InputError, ModelError
from hfnet_edge.image.keypoints import CELL
from hfnet_edge.map.map_file import MAX_GLOBAL_DIM, MAX_LOCAL_DIM
from hfnet_edge.networks.description import DESCRIPTOR_ROLES, KEYPOINT_ROLES

LOGITS, SCORES = KEYPOINT_ROLES
LOCAL, GLOBAL = DESCRIPTOR_ROLES

# Names that public exports use, the better first: scores before suppression can be refined below the pixel.
NAMES: dict[str, tuple[str, ...]] = {
    LOGITS: ("keypoint_logits", "logits"),
    SCORES: ("keypoint_scores", "scores_dense", "scores_dense_nms"),
    LOCAL: ("local_descriptors", "local_descriptor_map"),
    GLOBAL: ("global_descriptor",),
}
GREY, COLOUR = 1, 3  # channels of an image
OPTION = {"logits": LOGITS, "scores": SCORES, "local_descriptors": LOCAL, "global_descriptor": GLOBAL}
MEANING = {
    LOGITS: f"keypoint logits (H/8, W/8, {CELL * CELL + 1})",
    SCORES: "dense keypoint scores (H, W)",
    LOCAL: "dense local descriptors (H/8, W/8, D)",
    GLOBAL: "the global descriptor (G,)",
}


@dataclass(frozen=True)
class Tensor:
    """An input or output: its name and shape, batch included, None where a size is not fixed."""

    name: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join('?' if n is None else str(n) for n in self.shape)})"


@dataclass(frozen=True)
class Found:
    """The output that plays a role.

    Attributes:
        name: of the output.
        width: channels of a map, dimensions of the global descriptor; 1 for scores.
        channels_first: the map is (D, h, w).
    """

    name: str
    width: int
    channels_first: bool = False


def parse_outputs(text: str) -> dict[str, str]:
    """``"scores=NAME,local_descriptors=NAME"`` as role to name. Raises InputError."""
    named = {}
    for part in text.split(","):
        key, _, name = (s.strip() for s in part.partition("="))
        if key not in OPTION or not name or OPTION[key] in named:
            raise InputError(
                f"--outputs {text}: {part.strip() or 'nothing'} is not ROLE=NAME",
                f"ROLE is one of {', '.join(OPTION)}, each at most once",
            )
        named[OPTION[key]] = name
    if LOGITS in named and SCORES in named:
        raise InputError(f"--outputs {text} names both logits and scores", "name the one to detect keypoints from")
    return named


def image_shape(inputs: Sequence[Tensor], input_size: tuple[int, int], where: str) -> tuple[int, int, int, int]:
    """The shape of a network's one input for an image of ``input_size``: (1, H, W, C) or (1, C, H, W), C 1 or 3.

    Raises:
        ModelError: several inputs, another number of channels, another size, or not a batch of images.
    """
    listed = ", ".join(map(str, inputs))
    if len(inputs) != 1:
        raise ModelError(
            f"{where} has {len(inputs)} inputs: {listed}",
            "export it with the image as the only one and the others as constants",
        )
    shape = inputs[0].shape
    if len(shape) != 4 or shape[0] not in (1, None):
        raise ModelError(f"{where}: its input {listed} is not a batch of one image", "export it as (1, H, W, 1)")
    if not {shape[1], shape[3]} & {GREY, COLOUR}:
        raise ModelError(
            f"{where}: its input {listed} is neither grey nor colour",
            "export it with one or three channels, first or last",
        )
    h, w = input_size
    last = channel_axis(shape) == 3
    fixed = (1, h, w, shape[3] or 0) if last else (1, shape[1] or 0, h, w)
    if any(n not in (None, m) for n, m in zip(shape, fixed, strict=True)):
        theirs = shape[1:3] if last else shape[2:]
        raise ModelError(
            f"{where}: its input {listed} is not {h}x{w}",
            f"use --input-size {theirs[0] or 'HEIGHT'}x{theirs[1] or 'WIDTH'}, or export it again",
        )
    return fixed


def channel_axis(shape: Sequence[int | None]) -> int:
    """Which axis of an image's shape the channels are: 3 or 1."""
    return 3 if shape[3] in (GREY, COLOUR) else 1


def find_roles(
    outputs: Sequence[Tensor], input_size: tuple[int, int], where: str, named: Mapping[str, str] | None = None
) -> dict[str, Found]:
    """Which outputs are the keypoint logits (or else the dense scores), the local and the global descriptors.

    Args:
        outputs: with the shapes that they have at ``input_size``.
        named: role to name of an output, where the user knows better.

    Returns:
        `Found` for each of the three roles. Other outputs are left out.

    Raises:
        ModelError: a role has no output or several, or a layout is not clear. It lists the outputs.
    """
    named = named or {}
    found: dict[str, Found] = {}

    def fail(problem: str, remedy: str = "") -> ModelError:
        example = "scores=NAME,local_descriptors=NAME,global_descriptor=NAME"
        return ModelError(
            f"{where} {problem}; its outputs are {', '.join(map(str, outputs)) or 'none'}",
            remedy or f'name them: --outputs "{example}"',
        )

    for role, name in named.items():
        if name not in {output.name for output in outputs}:
            raise fail(f"has no output {name}")
        if not any(output.name == name and _fits(output, role, input_size) for output in outputs):
            raise fail(f"has an output {name}, but its shape is not that of {MEANING[role]}")

    def candidates(role: str) -> list[Tensor]:
        fitting = [output for output in outputs if _fits(output, role, input_size)]
        if role in named:
            return [output for output in fitting if output.name == named[role]]
        others = {name for r, names in NAMES.items() if r != role for name in names}
        taken = {*named.values(), *(f.name for f in found.values())}
        return [o for o in fitting if o.name not in taken and _plain(o.name) not in others]

    def choose(role: str) -> Found:
        fitting = candidates(role)
        if len(fitting) > 1:  # shapes do not decide
            by_name = [[o for o in fitting if _plain(o.name) == name] for name in NAMES[role]]
            fitting = next((matches for matches in by_name if matches), fitting)
        if len(fitting) != 1:
            many = " and ".join(str(o) for o in fitting)
            raise fail(f"has several outputs that could be {MEANING[role]}, {many}" if many else _missing(role))
        (output,) = fitting
        return _found(output, role, input_size, fail)

    detector = SCORES if SCORES in named or not candidates(LOGITS) else LOGITS
    for role in (detector, LOCAL, GLOBAL):
        found[role] = choose(role)
    for role, limit in ((LOCAL, MAX_LOCAL_DIM), (GLOBAL, MAX_GLOBAL_DIM)):
        if found[role].width > limit:
            raise fail(
                f"has {found[role].width} dimensions in {found[role].name}, a map holds at most {limit}",
                "fold a PCA into the last layer, and export it again",
            )
    return found


def _missing(role: str) -> str:
    if role == SCORES:
        return f"has neither {MEANING[LOGITS]} nor {MEANING[SCORES]}"
    return f"has no output that could be {MEANING[role]}"


def _plain(name: str) -> str:
    """``pred/scores_dense:0`` is known as scores_dense."""
    return name.split("/")[-1].split(":")[0].lower()


def _sizes(output: Tensor) -> tuple[int | None, ...]:
    return tuple(n for n in output.shape if n != 1)


def _fits(output: Tensor, role: str, input_size: tuple[int, int]) -> bool:
    sizes, cells = _sizes(output), tuple(side // CELL for side in input_size)
    if None in sizes:
        return False
    if role == SCORES:
        return sizes == input_size
    if role == GLOBAL:
        return len(sizes) == 1
    if len(sizes) != 3 or cells not in (sizes[:2], sizes[1:]):
        return False
    return role == LOCAL or CELL * CELL + 1 in (sizes[0], sizes[2])


def _found(output: Tensor, role: str, input_size: tuple[int, int], fail) -> Found:
    sizes, cells = _sizes(output), tuple(side // CELL for side in input_size)
    if role == SCORES:
        return Found(output.name, 1)
    if role == GLOBAL:
        return Found(output.name, sizes[0] or 0)
    if sizes[:2] == cells == sizes[1:]:
        raise fail(
            f"has the output {output}, in which channels could come first or last",
            "export at an --input-size that is not square",
        )
    channels_first = sizes[1:] == cells
    return Found(output.name, (sizes[0] if channels_first else sizes[2]) or 0, channels_first)
