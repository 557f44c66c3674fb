"""Text that others wrote is printed here alone."""

from __future__ import annotations

import re

# Control characters, marks that turn the direction of text, separators of lines and halves of characters.
_STEERS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, kept: str = "") -> str:
    """Text that others wrote, as one line that cannot steer a terminal: what could is shown as ``\\x1b`` or
    ``\\u202e``. Letters of all languages stay. So do the characters ``kept``."""
    return _STEERS.sub(lambda c: c[0] if c[0] in kept else _escaped(c[0]), text)


def _escaped(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"
