"""Chooses how to spend a budget of bytes, judged by localizing reference images that were left out of the map.

The user's queries are never looked at. Of small maps every image is left out once, in five folds; of large ones some
images are, and judged in a map of their neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hfnet_edge.codecs import CodecName
from hfnet_edge.console import Report, silent
from hfnet_edge.errors import InputError
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.localizer import LocalizationConfig, Method, localize_features
from hfnet_maps.evaluation import pose_error
from hfnet_maps.pack import GLOBAL_DIMS, Packer, Settings, all_settings, global_dim
from hfnet_maps.selection import cover
from hfnet_maps.source import Source
from hfnet_maps.writer import Sections, full_sections, lay_out, size_of, to_map

FOLDS = 5
MOST_QUERIES = 60
NEIGHBOURS = 20  # images most covisible with a left-out one that stay in its map
COVER = 50  # landmarks: twice an accepted pose's fewest inliers, and some that do not match
CURVE_POINTS = 8

Query = tuple[Features, Camera, Pose]
Fold = tuple[Source, list[Query]]
"""A map without some images, and these as queries."""


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
    """

    settings: Settings | None
    landmarks: int
    size: int
    localized: float = np.nan
    median: tuple[float, float] = (np.nan, np.nan)
    scores: np.ndarray | None = field(default=None, compare=False)

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

    Attributes:
        full: what the uncompacted maps reach.
    """

    def __init__(self, source: Source, folds: Sequence[Fold]):
        self._folds = [(Packer(rest), queries) for rest, queries in folds]
        of_patches = bool(source.extractor.global_weights_hash)  # trees and frames see the same landmarks: frames alone
        self._config = LocalizationConfig(Method.RETRIEVAL if of_patches else Method.HIERARCHICAL)
        self._usual = 1.0
        errors = self._errors([full_sections(packer.source) for packer, _ in self._folds])
        finite = errors[np.isfinite(errors[:, 0]), 0]
        self._usual = max(float(np.median(finite)), 1e-9) if len(finite) else 1.0
        self.full = self._choice(errors, Choice(None, len(source.positions), size_of(full_sections(source))))

    def judge(self, choice: Choice, whole: Packer) -> Choice:
        """The choice with its figures.

        Args:
            whole: the packer that it is for; maps without images keep the same share of landmarks.
        """
        assert choice.settings is not None
        share = choice.landmarks / len(whole.order)
        maps = []
        for packer, _ in self._folds:
            maps.append(packer.pack(choice.settings, max(1, round(share * len(packer.order)))))
        return self._choice(self._errors(maps), choice)

    def _errors(self, maps: Sequence[Sections]) -> np.ndarray:
        errors = []
        for (_, queries), sections in zip(self._folds, maps, strict=True):
            m = to_map(sections)
            for features, camera, pose in queries:
                found = localize_features(m, features, camera, self._config).pose
                errors.append((np.inf, np.inf) if found is None else pose_error(found, pose))
        return np.array(errors).reshape(-1, 2)

    def _choice(self, errors: np.ndarray, choice: Choice) -> Choice:
        return replace(
            choice,
            localized=float(np.isfinite(errors[:, 0]).mean()),
            median=(float(np.median(errors[:, 0])), float(np.median(errors[:, 1]))),
            scores=self._usual / (self._usual + errors[:, 0]),
        )


def choose(
    source: Source, budget: int, codec: CodecName | None = None, progress: Report = silent
) -> tuple[Sections, list[Choice]]:
    """The best map within a budget.

    Args:
        budget: bytes of the file.
        codec: only this one.

    Returns:
        Its sections, and what was tried, the chosen first.

    Raises:
        InputError: the budget is too small for the images alone, or there are no landmarks.
    """
    if not len(source.positions):
        raise InputError("the source has no landmarks", "build it again, with images that overlap")
    packer = Packer(source)
    if source.codec is not None:
        fixed = _as_packed(source)
        if codec is not None and codec is not fixed.codec:
            raise InputError(
                f"this map is packed with the codec {fixed.codec}", "pack it again from the map that `build` wrote"
            )
        return _finish(packer, Choice(fixed, 0, 0), budget, [])
    options = packer.candidates(budget, codec)
    folds = _folds(source)
    if not folds:
        usual = [s for s in options if s.per_landmark == 4 and (s.subspaces == 12 or codec is not None)]
        return _finish(packer, Choice((usual or options)[0], 0, 0), budget, [])
    if packer.estimate(options[0], budget) <= 1:
        packer.fit(options[0], budget)  # says now, before the long part, how small is too small
    progress("judging", 0, len(options) + 2)
    jury = Jury(source, folds)
    tried: list[Choice] = []

    def judge(settings: Settings) -> None:
        if not any(t.settings == settings for t in tried):
            tried.append(jury.judge(Choice(settings, packer.estimate(settings, budget), budget), packer))
        progress("judging", len(tried), len(options) + 2)

    for settings in options:
        judge(settings)
    best = _best(tried).settings
    assert best is not None
    widths = sorted({source.global_descriptors.shape[1], *GLOBAL_DIMS, best.global_dim})
    at = widths.index(best.global_dim)
    for width in (*widths[max(0, at - 1) : at], *widths[at + 1 : at + 2]):
        if width <= source.global_descriptors.shape[1]:
            judge(replace(best, global_dim=width))
    progress("judging", len(options) + 2, len(options) + 2)
    tried.append(jury.full)
    return _finish(packer, _best(tried[:-1]), budget, tried)


def curve(
    source: Source, budgets: Sequence[int], codec: CodecName | None = None, progress: Report = silent
) -> list[Choice]:
    """The best choice at each of several budgets, and the uncompacted map last.

    Raises:
        InputError: the source keeps nothing to judge by.
    """
    folds = check_judged(source)
    packer, jury = Packer(source), Jury(source, folds)
    options = [packer.candidates(budget, codec) for budget in budgets]
    total, done, found = sum(map(len, options)), 0, []
    progress("curve", 0, total)
    for budget, settings_here in zip(budgets, options, strict=True):
        tried = []
        for settings in settings_here:
            choice = Choice(settings, packer.estimate(settings, budget), budget)
            if choice.landmarks > 1:
                tried.append(jury.judge(choice, packer))
            done += 1
            progress("curve", done, total)
        if tried:
            found.append(_best(tried))
    return [*found, jury.full]


def check_judged(source: Source) -> list[Fold]:
    """What settings can be judged by. Raises InputError where there is nothing."""
    if source.photos is None:
        raise InputError(
            "the source lacks the keypoints of its reference images, so there is nothing to judge by",
            "give the map that `hfnet-map build` wrote, or --sfm with --features",
        )
    folds = _folds(source)
    if not folds:
        raise InputError(
            f"{len(source.names)} images are too few to leave one out and judge by it", "pack without --curve"
        )
    return folds


def curve_budgets(source: Source, codec: CodecName | None = None) -> list[int]:
    """Sizes from the smallest sensible map, `COVER` landmarks in every image (K-cover), to where all is kept."""
    packer = Packer(source)
    most = size_of(lay_out(packer.source))
    smallest = all_settings(packer.source, 0, codec)[0]
    least = size_of(packer.pack(smallest, cover(packer.source, packer.order, COVER)))
    return [int(b) for b in np.geomspace(least, most, CURVE_POINTS)]


def _best(tried: Sequence[Choice]) -> Choice:
    """The choice that keeps the most landmarks, of those within one standard error of the highest score: a few images
    cannot tell these apart, and landmarks that they do not need serve other views."""
    top = max(tried, key=lambda choice: choice.score)
    assert top.scores is not None
    equal = [t for t in tried if t.scores is not None and top.score - t.score <= _standard_error(top.scores - t.scores)]
    return max(equal, key=lambda choice: (choice.landmarks, choice.score))


def _standard_error(differences: np.ndarray) -> float:
    return float(differences.std() / np.sqrt(len(differences)))


def _finish(packer: Packer, choice: Choice, budget: int, tried: list[Choice]) -> tuple[Sections, list[Choice]]:
    """Fits the chosen settings to the budget exactly."""
    assert choice.settings is not None
    count = packer.fit(choice.settings, budget)
    while True:
        sections = {**packer.pack(choice.settings, count), **packer.trees(count)}
        if size_of(sections) <= budget:
            break
        if count == 1:
            raise InputError(f"a budget of {budget} bytes is too small for random trees", "give a larger --budget")
        count = max(1, count * 97 // 100)  # trees of fewer landmarks are a little larger for each
    chosen = replace(choice, landmarks=count, size=size_of(sections))
    return sections, [chosen, *(t for t in tried if t is not choice)]


def _as_packed(source: Source) -> Settings:
    """The settings that a packed map was made with."""
    codec = source.codec
    assert codec is not None
    most = int(np.bincount(source.described).max(initial=1))
    subspaces = 0 if codec.codebook is None else len(codec.codebook)
    return Settings(codec.name, codec.dim, subspaces, most, global_dim(source, 0))


def _folds(source: Source) -> list[Fold]:
    """Images left out together, as queries, with the maps without them; none where there is nothing to judge by."""
    if source.photos is None:
        return []
    count = len(source.names)
    if count <= MOST_QUERIES:
        left_out = [np.arange(fold, count, FOLDS) for fold in range(min(FOLDS, count))]
    else:
        left_out = [np.linspace(0, count - 1, MOST_QUERIES).round().astype(np.int64)]
    return [(rest, queries) for rest, queries in (_leave_out(source, images) for images in left_out) if queries]


def _leave_out(source: Source, images: np.ndarray) -> Fold:
    """The map without some images, and these as queries. Of a large map only their neighbours stay."""
    assert source.photos is not None
    queries = [(source.features(i), source.photos.cameras[i], source.poses[i]) for i in images]
    left_out = np.zeros(len(source.names), bool)
    left_out[images] = True
    if len(source.names) > MOST_QUERIES * NEIGHBOURS:
        near = np.zeros(len(source.names), bool)
        starts = np.searchsorted(source.landmarks, np.arange(len(source.positions) + 1))
        for image in images:
            shared = np.zeros(len(source.names), np.int64)
            for landmark in source.landmarks[source.observed(image)]:
                shared[source.images[starts[landmark] : starts[landmark + 1]]] += 1
            shared[images] = -1
            near[np.argsort(-shared, kind="stable")[:NEIGHBOURS]] = True
        left_out |= ~near
    rest = source.without_images(np.flatnonzero(left_out))
    return rest, queries if len(rest.positions) else []
