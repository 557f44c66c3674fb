"""What a map's own left-out reference images said of probabilities: the section CALIBRATION.

Points are thousandths of a logit, see `hfnet_edge.trust.probability`. `hfnet-map pack` fits how they are moved in this
map.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass

LOGIT = 1000  # points
LARGEST = 14 * LOGIT  # nobody has seen as many wrong poses as it takes to claim more
UNIT = 1 << 12  # of a slope
SECTION = struct.Struct("<iiiiI")
MAX_SLOPE, MAX_OFFSET, MAX_IMAGES = 4 * UNIT, LARGEST, 1 << 24


@dataclass(frozen=True)
class Calibration:
    """How a map moves points: ``points * slope / UNIT + offset``.

    Attributes:
        right_slope, right_offset: of a pose being right at all. precise_slope, precise_offset: of a right one being
            within the tolerance. Slopes times `UNIT`, offsets in points.
        images: left-out images that it was fitted on; 0: none.
    """

    right_slope: int = UNIT
    right_offset: int = 0
    precise_slope: int = UNIT
    precise_offset: int = 0
    images: int = 0

    def right(self, points: int) -> int:
        """Rounds towards minus infinity, and stays within `LARGEST`."""
        return _moved(points, self.right_slope, self.right_offset)

    def precise(self, points: int) -> int:
        """As `right`."""
        return _moved(points, self.precise_slope, self.precise_offset)

    def __str__(self) -> str:
        """For people: "calibrated on 24 left-out images (right x 1.02 - 0.11, precise x 0.97 + 0.40)", in logits."""
        right, precise = (
            f"x {slope / UNIT:.2f} {'-' if offset < 0 else '+'} {abs(offset) / LOGIT:.2f}"
            for slope, offset in ((self.right_slope, self.right_offset), (self.precise_slope, self.precise_offset))
        )
        return f"calibrated on {self.images} left-out images (right {right}, precise {precise})"

    def to_bytes(self) -> bytes:
        """The section."""
        return SECTION.pack(*astuple(self))

    @classmethod
    def from_bytes(cls, content: bytes) -> Calibration:
        """Reads what `to_bytes` made. Raises ValueError: another length, or numbers that no fit gives."""
        if len(content) != SECTION.size:
            raise ValueError(f"has {len(content)} bytes, not {SECTION.size}")
        read = cls(*SECTION.unpack(content))
        for slope, offset in ((read.right_slope, read.right_offset), (read.precise_slope, read.precise_offset)):
            if not 0 < slope <= MAX_SLOPE or abs(offset) > MAX_OFFSET:
                raise ValueError(f"moves points by {slope} / {UNIT} and {offset}")
        if read.images > MAX_IMAGES:
            raise ValueError(f"was fitted on {read.images} images")
        return read


def _moved(points: int, slope: int, offset: int) -> int:
    return max(-LARGEST, min(LARGEST, points * slope // UNIT + offset))
