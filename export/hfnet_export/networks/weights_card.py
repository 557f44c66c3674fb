"""The JSON in a file of weights: the network's configuration, and its card. Read without TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hfnet_edge.shell.reading import open_input

ABOUT = "__about__"  # its name among the arrays


def is_crbnet(path: Path) -> bool:
    """The file holds weights of a CRBNet. False for anything else, readable or not."""
    try:
        with open_input(path) as opened, np.load(opened) as file:
            return "dim" in json.loads(file[ABOUT].tobytes())["network"]
    except Exception:  # numpy raises whatever it likes
        return False
