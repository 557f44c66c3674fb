"""Every cause has one typed error. Its message says what was wrong; ``remedy`` says what to do about it.

The commands print both on one line and exit with code 2.
"""

from __future__ import annotations

import re

ADDRESSED = re.compile(r"\s*<[^<>]* at 0x[0-9a-fA-F]+>")  # an object as Python shows it, in a text of Pillow's, say


class HFNetEdgeError(Exception):
    """Base of every error that this project raises on purpose."""

    def __init__(self, problem: str, remedy: str = ""):
        self.problem, self.remedy = ADDRESSED.sub("", problem), remedy
        super().__init__(f"{self.problem}; {remedy}" if remedy else self.problem)


class InputError(HFNetEdgeError):
    """A file, list or option that the user gave is missing, unreadable or malformed."""


class ImageError(InputError):
    """An image is missing, does not decode, or is too small."""


class CameraError(InputError):
    """A camera's model or parameters are not supported or not sensible."""


class ModelError(HFNetEdgeError):
    """A model file is truncated, is not TFLite, or lacks its description."""


class MapFormatError(HFNetEdgeError):
    """A map file is truncated, damaged or not a map."""


class MapVersionError(MapFormatError):
    """A map file was written by a newer major version of the format."""


class RemoteError(HFNetEdgeError):
    """What is behind a URL cannot be read: its server is away, does not send parts of files, or breaks off."""


class DeltaError(HFNetEdgeError):
    """A delta between two maps is damaged, is not signed as asked, or is not of the map that it is applied to."""


class MismatchError(HFNetEdgeError):
    """Model and map do not belong together."""


class SearchLimitError(HFNetEdgeError):
    """One query asks more of a map's random trees than a map made in good faith ever does."""


class OutputError(HFNetEdgeError):
    """An output cannot be written."""


class InstallError(HFNetEdgeError):
    """An optional dependency is not installed, or a tool that is installed when it is first needed could not be."""


class RecordingError(HFNetEdgeError):
    """A recording or a reference bundle is truncated, damaged, or lacks what is asked of it."""


class BackendError(HFNetEdgeError):
    """A device, an emulator or a tool that it needs is not available, or a run on it failed."""
