"""What to do where the extra packages of hfnet-export are not installed; imports none of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hfnet_edge.errors import HFNetEdgeError
from hfnet_edge.quiet import quiet


@contextmanager
def export_extra() -> Iterator[None]:
    """Around imports of TensorFlow: quiet, and a missing package is named with its remedy. Raises HFNetEdgeError."""
    try:
        with quiet():
            yield
    except ModuleNotFoundError as e:
        raise HFNetEdgeError(f"{e.name} is not installed", "pip install 'hfnet-edge[export]'") from e
