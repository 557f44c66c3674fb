"""The seam: a method is one paper's way from a photo to 2D-3D correspondences.

    look (the networks) ─> Query ─> candidates (the map) ─> Match2D3D, likeliest first

What comes after it (pose, drawing, recording, parity, bench) is shared and does not know which method ran.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from hfnet_edge.clock import Clock
from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.errors import InputError
from hfnet_edge.features import Features, look
from hfnet_edge.image.photo import Photo
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.networks.by_role import Networks, weights_of
from hfnet_edge.networks.description import HYPERCOLUMN_ROLE
from hfnet_edge.pose.solvers import PoseConfig
from hfnet_edge.result import Status
from hfnet_edge.tensor import Output
from hfnet_edge.trust.tolerance import Tolerance

MIN_WRONG = 1e-5  # nobody has seen as many queries as it takes to promise less


@dataclass(frozen=True)
class Query:
    """What a method made of a photo before it asks the map.

    Attributes:
        pixel: size of one pixel of the network's input in pixels of the photo; the unit of every pixel threshold.
        features: None where the method seeks nothing by keypoints.
        outputs: role to what a network returned, of those that the method uses: recordings keep them.
        among: (M,) bool reference images that may be retrieved (`hfnet_edge.prior`); None: all.
    """

    pixel: float
    features: Features | None = None
    outputs: Mapping[str, Output] = field(default_factory=dict)
    among: np.ndarray | None = None


@dataclass(frozen=True)
class Candidates:
    """Where a query may have been taken, likeliest first.

    Attributes:
        matches: one a place, perhaps made as they are asked for, ``xyz`` relative to the map's origin. The first few
            are compared, a pose is sought in the others until one is accepted.
        prior_frames: (K,) int64 reference images that were retrieved, most similar first; empty: none were.
        abstention: why there are no matches.
        further: as ``matches``, less likely places: asked for only where no pose in ``matches`` is accepted.
        chance: share of ``matches`` that fit a pose by chance, where they were sought near where that puts landmarks.
    """

    matches: Iterable[Match2D3D] = ()
    prior_frames: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    abstention: Status = Status.NO_CANDIDATES
    further: Iterable[Match2D3D] = ()
    chance: float = 0.0


@dataclass(frozen=True)
class LocalizationConfig:
    """Settings of the search.

    Attributes:
        method: a name of `hfnet_edge.methods.registry.METHODS`, a ``module:Class``, or the class itself.
        prior_frame_count: reference images that are retrieved. None: as the method's paper has it.
        prior_leaf_count: leaves of the random trees that are searched for each keypoint (002, section 4.2: 100).
        pose: the solver's.
        tolerance: what `LocalizationResult.probability` speaks of.
        max_wrong: how probable it may be that a pose that is given is wrong altogether, see `LocalizationResult.wrong`.
        refine_focal: find the focal length with the pose; the camera's own is where the search begins.
    """

    method: str | type[Method] = "hierarchical"
    prior_frame_count: int | None = None
    prior_leaf_count: int = 100
    pose: PoseConfig = field(default_factory=PoseConfig)
    tolerance: Tolerance = field(default_factory=Tolerance)
    max_wrong: float = 0.001
    refine_focal: bool = False

    def __post_init__(self) -> None:
        if not MIN_WRONG <= self.max_wrong < 1:
            raise InputError(f"max_wrong is {self.max_wrong}", f"give a share from {MIN_WRONG:g} to 1, as 0.001")
        for name in ("prior_frame_count", "prior_leaf_count"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}", "give 1 or more, or choose another method")


class Method(ABC):
    """One way from a photo to correspondences, in one map. Threads may share it: it keeps nothing of a query.

    A method of features that the map holds (`hfnet_edge.features.look`) says how it searches; one of other outputs says
    which `roles` it needs, how long its stages are called, and how it looks.

    Args:
        map_: the place. networks: that give `roles`; none where features come from elsewhere, and `look` is not asked.
        config: of the search.

    Raises:
        MismatchError: the map lacks what the method searches in.
    """

    look_stages: ClassVar[tuple[str, ...]] = ()  # names of the clock's stages, in order; (): of features
    search_stages: ClassVar[tuple[str, ...]]
    by_features: ClassVar[bool] = True  # recorded keypoints and descriptors are all that it needs to search again

    def __init__(self, map_: LocalizationMap, networks: Networks, config: LocalizationConfig):
        self.map, self.networks, self.config = map_, networks, config

    @classmethod
    def roles(cls, map_: LocalizationMap) -> frozenset[str]:
        """The network outputs that it needs; here those that made the map's features."""
        return frozenset(weights_of(map_)) - {HYPERCOLUMN_ROLE}

    @classmethod
    def further_roles(cls, map_: LocalizationMap) -> frozenset[str]:
        """The network outputs that it uses where they are there."""
        return frozenset()

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the photo that `look` is given."""
        return self.networks.image.description.input_size

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of a query that becomes a pose, in order."""
        described = "decode" if self.networks.patches is None else "describe"
        return (
            "load",
            *(self.look_stages or ("extract", described)),
            *self.search_stages,
            "pose",
            "second_look",
            "trust",
        )

    def look(self, photo: Photo, clock: Clock) -> Query:
        """What the networks make of a photo. Raises ModelError."""
        features, outputs = look(self.networks, photo, clock)
        asked = self.roles(self.map)
        used = {role: output for role, output in outputs.items() if role != HYPERCOLUMN_ROLE or role in asked}
        return Query(features.pixel, features, used)

    @abstractmethod
    def candidates(self, query: Query, clock: Clock) -> Candidates:
        """Where the query may have been taken. Raises MapFormatError: the map is damaged where it is touched."""
