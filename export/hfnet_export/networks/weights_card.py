"""The JSON in a file of weights: the network's configuration, and its card. Read without TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hfnet_edge.shell.reading import open_input

ABOUT = "__about__"  # its name among the arrays


def network_of(path: Path) -> str:
    """ "crbnet" or "densernet" where the file holds weights of one; "hfnet" for anything else, readable or not."""
    try:
        with open_input(path) as opened, np.load(opened) as file:
            network = json.loads(file[ABOUT].tobytes())["network"]
            return "crbnet" if "dim" in network else "densernet" if set(network) == {"global_dim"} else "hfnet"
    except Exception:  # numpy raises whatever it likes
        return "hfnet"
