"""The tolerance that a probability speaks of."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hfnet_edge.errors import InputError


@dataclass(frozen=True)
class Tolerance:
    """How far a pose may be from the truth.

    Attributes:
        position: map units; where ``relative``, a share of the scene's depth, for maps without a known unit.
        rotation: degrees.

    Raises:
        InputError: not positive numbers.
    """

    position: float = 0.25
    rotation: float = 2.0
    relative: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.position < math.inf and 0 < self.rotation <= 180):
            raise InputError(f"{self} is no tolerance", 'write "0.25,2" (map units, degrees) or "1%,2"')

    @classmethod
    def parse(cls, text: str) -> Tolerance:
        """Reads "0.25,2" (map units, degrees) or "1%,2" (of the scene's depth, degrees). Raises InputError."""
        try:
            position, rotation = text.split(",")
            relative = position.strip().endswith("%")
            value = float(position.strip().rstrip("%")) / (100 if relative else 1)
            return cls(value, float(rotation), relative)
        except ValueError as e:
            raise InputError(f"{text!r} is no tolerance", 'write "0.25,2" (map units, degrees) or "1%,2"') from e

    def __str__(self) -> str:
        position = f"{self.position * 100:g}%" if self.relative else f"{self.position:g}"
        return f"{position},{self.rotation:g}"

    def at(self, depth: float) -> tuple[float, float]:
        """Map units and degrees, of a scene of this depth."""
        return self.position * depth if self.relative else self.position, self.rotation


RIGHT = Tolerance(0.05, 10.0, relative=True)
"""Of a pose that is right at all: what is farther off is wrong, see `hfnet_edge.result.LocalizationResult.wrong`."""
