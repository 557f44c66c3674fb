"""What `build` can be asked for, by name: without pycolmap, which takes a second to load."""

from enum import StrEnum


class BuildMethod(StrEnum):
    """What the map is for."""

    HIERARCHICAL = "hierarchical"
    PARALLEL = "parallel"
    SPARSE_TO_DENSE = "sparse-to-dense"


class Mapper(StrEnum):
    """COLMAP's ways from matches to poses."""

    INCREMENTAL = "incremental"
    GLOBAL = "global"
