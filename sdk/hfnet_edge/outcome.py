"""What `hfnet-localize` prints: one query's pose and how far it can be trusted, and how a run of many went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

import typer
from rich.table import Table

from hfnet_edge.errors import HFNetEdgeError, InputError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.pose.intrinsics import IntrinsicsCheck
from hfnet_edge.result import LocalizationResult, Status
from hfnet_edge.shell.console import INTERRUPTED, say
from hfnet_edge.shell.tables import show

MANY = 3  # queries that say the same of the camera, and half of those that say anything
STRONG = 0.3  # support of another pose, of the pose's own: worth a word


def result_text(name: str, result: LocalizationResult, stated: Camera) -> str:
    """Lines on one query.

    Args:
        stated: the camera that it came with.
    """
    pose, camera = result.pose, result.camera or stated
    if pose is None:
        near = [] if result.coarse is None else [f"it looks like the reference image at {_centre(result.coarse)}"]
        return "\n".join([f"{name}: no pose, {result.status.value}{reason(result)}", *near, *result.notes])
    lines = [f"{name}: {trust_text(result)}", support_text(result)]
    lines += result.notes
    if result.rotation:
        lines.append(f"upright when turned by {result.rotation} degrees clockwise")
    if result.found_by:
        lines.append(f"found by {result.found_by}")
    lines.append(f"cam_from_world {' '.join(f'{v:.6f}' for v in (*pose.quaternion, *pose.translation))}")
    lines.append(f"camera centre  {_centre(pose)}")
    if camera.focal != stated.focal:
        lines.append(f"focal length found with the pose: {camera.focal[0]:.0f} px ({stated.focal[0]:.0f} stated)")
    if result.intrinsics is not None:
        lines += remarks(result.intrinsics, camera)
    return "\n".join(lines)


def _centre(pose: Pose) -> str:
    return " ".join(f"{v:.3f}" for v in pose.center)


def trust_text(result: LocalizationResult) -> str:
    """The probability, and what it is of."""
    position, rotation = result.tolerance
    return f"within {position:.3g} units and {rotation:g}° with probability {result.probability:.3f}"


def support_text(result: LocalizationResult) -> str:
    """Uncertainty, inliers, and how well they fit."""
    return (
        f"± {result.position_std:.2g} units, ± {result.rotation_std:.2g}°, {result.inliers} inliers, "
        f"reprojection error {result.reprojection_error:.2g} px"
    )


def reason(result: LocalizationResult) -> str:
    """Why the best candidate was refused; nothing where there was none."""
    evidence = result.evidence
    if evidence is None:
        return ""
    parts = []
    if evidence.rival >= STRONG:
        parts.append(f"another pose has {100 * evidence.rival:.0f} % of its support")
    position, rotation = result.tolerance
    if result.covariance is None:
        parts.append("its inliers leave it free to move")
    elif result.position_std > position or result.rotation_std > rotation:
        parts.append(
            f"its inliers leave it free to move by {result.position_std:.2g} units and {result.rotation_std:.2g}°"
        )
    if result.status is Status.AMBIGUOUS and not parts:
        parts.append("its inliers do not hold it")
    parts.append(f"{result.inliers} inliers, wrong with probability {result.wrong:.2g}")
    return f": {', '.join(parts)}"


def remarks(check: IntrinsicsCheck, camera: Camera) -> list[str]:
    """Lines on what the inliers contradict in the camera."""
    lines = []
    if check.focal_is_off:
        focal = camera.focal[0]
        lines.append(
            f"{_focal_text(check.focal)} (inliers say {focal * (1 + check.focal):.0f} px, the camera {focal:.0f}): "
            "check the camera, or add --refine-focal"
        )
    if check.center_is_off:
        said = (camera.center[0] + check.center[0], camera.center[1] + check.center[1])
        lines.append(
            f"the principal point seems off (inliers say {said[0]:.0f} {said[1]:.0f}, the camera "
            f"{camera.center[0]:.0f} {camera.center[1]:.0f}): check the camera"
        )
    return lines


def _focal_text(error: float) -> str:
    return f"the focal length seems {100 * abs(error):.2g} % too {'short' if error > 0 else 'long'}"


@dataclass
class Outcome:
    """How a run of ``queries`` queries went.

    Attributes:
        statuses: how many queries ended with each.
        milliseconds: of each of these queries, by stage.
        checks: what the inliers say of the stated cameras, of the localized queries whose focal length was not sought.
        guessed: queries whose camera was guessed.
        failed: why the others have no result. undrawn: why pictures are missing.
        stopped: before the end, by the user.
    """

    queries: int
    statuses: Counter[Status] = field(default_factory=Counter)
    milliseconds: list[Mapping[str, float]] = field(default_factory=list)
    checks: list[IntrinsicsCheck] = field(default_factory=list)
    guessed: int = 0
    failed: list[HFNetEdgeError] = field(default_factory=list)
    undrawn: list[HFNetEdgeError] = field(default_factory=list)
    stopped: bool = False

    def add(self, result: LocalizationResult, stated: Camera, guessed: bool) -> None:
        """Counts a query."""
        self.statuses[result.status] += 1
        self.milliseconds.append(result.milliseconds)
        self.guessed += guessed
        if result.pose is not None and result.intrinsics is not None and result.camera == stated:
            self.checks.append(result.intrinsics)

    @property
    def localized(self) -> int:
        """Queries with a pose."""
        return self.statuses[Status.LOCALIZED]

    @property
    def focal_remark(self) -> str:
        """What many queries say of the focal length; empty where they do not."""
        off = [check for check in self.checks if check.focal_is_off]
        if len(off) < max(MANY, len(self.checks) / 2):
            return ""
        error = median(check.focal for check in self.checks)
        return (
            f"{len(off)} of {len(self.checks)} localized queries say that the focal length is off: "
            f"{_focal_text(error)}, in the median; check the cameras, or add --refine-focal"
        )

    def __str__(self) -> str:
        unreadable = sum(isinstance(e, InputError) for e in self.failed)
        parts = [f"{self.localized} of {self.queries} queries localized"]
        if unreadable:
            parts.append(f"{unreadable} could not be read")
        if len(self.failed) > unreadable:
            parts.append(f"{len(self.failed) - unreadable} failed")
        if self.stopped:
            parts.append(f"stopped after {self.statuses.total() + len(self.failed)}")
        return ", ".join(parts)

    def print(self) -> None:
        """Prints the counts, the stages' times, and what is to be said of the cameras."""
        print(self)
        table = Table()
        table.add_column("stage")
        table.add_column("median ms", justify="right")
        for stage in dict.fromkeys(stage for one in self.milliseconds for stage in one):
            table.add_row(stage, f"{median(one[stage] for one in self.milliseconds if stage in one):.1f}")
        table.add_section()
        table.add_row("whole query", f"{median(sum(one.values()) for one in self.milliseconds):.1f}")
        show(table)
        for status in Status:
            if self.statuses[status] and status is not Status.LOCALIZED:
                print(f"{self.statuses[status]} without a pose: {status.value}")
        if self.guessed:
            cameras = "1 camera was" if self.guessed == 1 else f"{self.guessed} cameras were"
            print(f"{cameras} guessed, by EXIF or --fov: the focal length was sought with the pose")
        if self.focal_remark and self.queries > 1:
            print(self.focal_remark)

    def leave(self) -> None:
        """Raises what the run ends with, if it is not whole: the interruption, or an HFNetEdgeError that counts the
        failures and names the first."""
        if self.stopped:
            say(str(self))
            raise typer.Exit(INTERRUPTED)
        for errors, what in ((self.failed, "queries were left out"), (self.undrawn, "pictures were not drawn")):
            if errors:
                counted = f"{len(errors)} of {self.queries} {what}: " if self.queries > 1 else ""
                raise type(errors[0])(f"{counted}{errors[0].problem}", errors[0].remedy)
