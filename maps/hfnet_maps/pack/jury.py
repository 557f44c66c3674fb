"""Judges ways to pack by localizing reference images that were left out of the map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hfnet_edge.localizer import localize_features
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.calibrate import Calibrated
from hfnet_maps.pack.folds import FOLDS, Fold, LeftOut
from hfnet_maps.pack.packer import Packer
from hfnet_maps.pack.settings import Settings
from hfnet_maps.pack.writer import Sections, full_sections, size_of, to_map

CLEARLY = 2  # standard errors behind the best on the same images: given up

Round = tuple[Packer, list[LeftOut]]
"""Of a race: settings that fall behind in it are given up."""


@dataclass(frozen=True)
class Choice:
    """One way to pack, and what came of it.

    Attributes:
        settings: how descriptors are kept; None: everything as it is.
        landmarks: how many are kept.
        size: bytes of the file; on a curve, about.
        localized: share of the left-out images that were.
        median: position and rotation error of all left-out images, map units and degrees; infinite without a pose.
        scores: (Q,) of each left-out image, e / (e + error), where e is the uncompacted map's median position error: 1
            for no error, 1/2 for the usual one, 0 for none found. None where there was nothing to judge by.
        calibrated: what the left-out images said of probabilities; of the chosen alone.
    """

    settings: Settings | None
    landmarks: int
    size: int
    localized: float = np.nan
    median: tuple[float, float] = (np.nan, np.nan)
    scores: np.ndarray | None = field(default=None, compare=False)
    calibrated: Calibrated | None = field(default=None, compare=False)

    @property
    def score(self) -> float:
        """Mean of ``scores``."""
        return np.nan if self.scores is None else float(self.scores.mean())

    @property
    def precise(self) -> float:
        """Share of the left-out images with at most twice the uncompacted map's median error."""
        return np.nan if self.scores is None else float((self.scores >= 1 / 3).mean())


class Jury:
    """Left-out reference images, and the packers of the maps without them.

    An image counts as localized where a device would be given the pose, by the bundled tables: a map of few landmarks
    is paid for in poses that nobody can be sure of, too.

    Attributes:
        config: of the search. images: number of left-out images. full: what the uncompacted maps reach.
    """

    def __init__(self, whole: Packer, folds: Sequence[Fold]):
        source, self._whole = whole.source, whole
        self._rounds: list[Round] = []
        for rest, queries in folds:
            packer, parts = Packer(rest), 1 if len(folds) > 1 else FOLDS
            self._rounds += [(packer, queries[part::parts]) for part in range(parts) if queries[part::parts]]
        self.images = sum(len(queries) for _, queries in self._rounds)
        # Trees and frames see the same landmarks: of maps with trees, frames alone.
        self.config = LocalizationConfig("retrieval" if source.networks.of_patches else "hierarchical")
        errors = self._errors(lambda packer: full_sections(packer.source))
        finite = errors[np.isfinite(errors[:, 0]), 0]
        self._usual = max(float(np.median(finite)), 1e-9) if len(finite) else 1.0
        self.full = self._choice(errors, Choice(None, len(source.positions), size_of(full_sections(source))))

    def judge(self, choice: Choice, best: Choice | None = None) -> Choice | None:
        """The choice with its figures, or None as soon as it is clearly behind the ``best`` on the images so far."""

        def hopeful(errors: np.ndarray) -> bool:
            if best is None or best.scores is None:
                return True
            behind = best.scores[: len(errors)] - self._usual / (self._usual + errors[:, 0])
            return float(behind.mean()) <= CLEARLY * _standard_error(behind)

        errors = self._errors(self._packing(choice), hopeful)
        return self._choice(errors, choice) if len(errors) == self.images else None

    def maps(self, choice: Choice) -> Iterator[tuple[LocalizationMap, list[LeftOut]]]:
        """Maps packed as the choice says, and of each the images that it lacks, every image once."""
        return self._maps(self._packing(choice))

    def _errors(
        self, pack: Callable[[Packer], Sections], hopeful: Callable[[np.ndarray], bool] = lambda _: True
    ) -> np.ndarray:
        """(Q, 2) position and rotation errors in the maps that ``pack`` makes; fewer once they are not ``hopeful``."""
        errors: list[tuple[float, float]] = []
        for map_, queries in self._maps(pack):
            for query in queries:
                found = localize_features(map_, query.features, query.camera, self.config).pose
                errors.append((np.inf, np.inf) if found is None else pose_error(found, query.pose))
            if not hopeful(np.array(errors)):
                break
        return np.array(errors).reshape(-1, 2)

    def _maps(self, pack: Callable[[Packer], Sections]) -> Iterator[tuple[LocalizationMap, list[LeftOut]]]:
        """The maps that ``pack`` makes, round by round, and the images that each lacks."""
        packed: tuple[Packer, LocalizationMap] | None = None
        for packer, queries in self._rounds:
            if packed is None or packed[0] is not packer:
                packed = packer, to_map(pack(packer))
            yield packed[1], queries

    def _packing(self, choice: Choice) -> Callable[[Packer], Sections]:
        """What packs a map as the choice says. Maps without images keep the same share of landmarks."""
        assert choice.settings is not None
        settings, share = choice.settings, choice.landmarks / len(self._whole.order)
        return lambda p: p.pack(settings, max(1, round(share * len(p.order))))

    def _choice(self, errors: np.ndarray, choice: Choice) -> Choice:
        return replace(
            choice,
            localized=float(np.isfinite(errors[:, 0]).mean()),
            median=(float(np.median(errors[:, 0])), float(np.median(errors[:, 1]))),
            scores=self._usual / (self._usual + errors[:, 0]),
        )


def _standard_error(differences: np.ndarray) -> float:
    return float(differences.std() / np.sqrt(len(differences)))
