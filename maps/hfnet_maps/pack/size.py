"""How people write sizes of files."""

from __future__ import annotations

import re

from hfnet_edge.errors import InputError


def parse_size(text: str) -> int:
    """Reads ``4MB``, ``300 kB``, ``1.5 GB`` or plain bytes. Raises InputError."""
    found = re.fullmatch(r"\s*(\d+\.?\d*)\s*([kMG]?)B?\s*", text, re.IGNORECASE)
    if found is None or not 0 < float(found[1]) < 1e12:
        raise InputError(f"{text!r} is not a size", "write it like 4MB or 300kB")
    return int(float(found[1]) * 1000 ** " kMG".lower().index(found[2].lower() or " "))
