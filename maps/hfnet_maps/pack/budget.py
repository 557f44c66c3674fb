"""Chooses how to spend a budget of bytes, judged by localizing reference images that were left out of the map.

The user's queries are never looked at. Of small maps every image is left out once, in five folds; of large ones some
images are, and judged in a map of their neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.localizer import LocalizationConfig, Method, localize_features
from hfnet_edge.map.codecs import CodecName
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.one_thread import one_thread
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.packer import Packer, Settings, all_settings, global_dim, global_sizes
from hfnet_maps.pack.selection import cover
from hfnet_maps.pack.writer import Sections, full_sections, size_of, to_map
from hfnet_maps.source import Source

FOLDS = 5
MOST_QUERIES = 60
NEIGHBOURS = 20  # images most covisible with a left-out one that stay in its map
COVER = 50  # landmarks: twice an accepted pose's fewest inliers, and some that do not match
SERIES = (10, 12, 15, 20, 25, 30, 40, 50, 60, 80)  # leading digits of the sizes that are tried, whatever the budget
OFTEN = (10, 20, 50)  # of those where other settings are tried
CLEARLY = 2  # standard errors behind the best on the same images: given up
USUAL = 12  # bytes of a descriptor, where there is nothing to judge by
FEWEST = 0.6  # of the landmarks that the smallest descriptors leave room for: settings that keep fewer are hopeless

Query = tuple[Features, Camera, Pose]
Fold = tuple[Source, list[Query]]
"""A map without some images, and these as queries."""
Round = tuple[Packer, list[Query]]
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

    def __init__(self, whole: Packer, folds: Sequence[Fold]):
        source, self._whole = whole.source, whole
        self._rounds: list[Round] = []
        for rest, queries in folds:
            packer, parts = Packer(rest), 1 if len(folds) > 1 else FOLDS
            self._rounds += [(packer, queries[part::parts]) for part in range(parts) if queries[part::parts]]
        of_patches = bool(source.extractor.global_weights_hash)  # trees and frames see the same landmarks: frames alone
        self._config = LocalizationConfig(Method.RETRIEVAL if of_patches else Method.HIERARCHICAL)
        errors = self._errors(lambda packer: full_sections(packer.source))
        finite = errors[np.isfinite(errors[:, 0]), 0]
        self._usual = max(float(np.median(finite)), 1e-9) if len(finite) else 1.0
        self.full = self._choice(errors, Choice(None, len(source.positions), size_of(full_sections(source))))

    def judge(self, choice: Choice, best: Choice | None = None) -> Choice | None:
        """The choice with its figures, or None as soon as it is clearly behind the ``best`` on the
        images so far. Maps without images keep the same share of landmarks."""
        assert choice.settings is not None
        settings, share = choice.settings, choice.landmarks / len(self._whole.order)

        def hopeful(errors: np.ndarray) -> bool:
            if best is None or best.scores is None:
                return True
            behind = best.scores[: len(errors)] - self._usual / (self._usual + errors[:, 0])
            return float(behind.mean()) <= CLEARLY * _standard_error(behind)

        errors = self._errors(lambda p: p.pack(settings, max(1, round(share * len(p.order)))), hopeful)
        return self._choice(errors, choice) if len(errors) == sum(len(queries) for _, queries in self._rounds) else None

    def _errors(
        self, pack: Callable[[Packer], Sections], hopeful: Callable[[np.ndarray], bool] = lambda _: True
    ) -> np.ndarray:
        """(Q, 2) position and rotation errors in the maps that ``pack`` makes; fewer once they are not ``hopeful``."""
        errors: list[tuple[float, float]] = []
        packed: tuple[Packer, LocalizationMap] | None = None
        for packer, queries in self._rounds:
            if packed is None or packed[0] is not packer:
                packed = packer, to_map(pack(packer))
            for features, camera, pose in queries:
                found = localize_features(packed[1], features, camera, self._config).pose
                errors.append((np.inf, np.inf) if found is None else pose_error(found, pose))
            if not hopeful(np.array(errors)):
                break
        return np.array(errors).reshape(-1, 2)

    def _choice(self, errors: np.ndarray, choice: Choice) -> Choice:
        return replace(
            choice,
            localized=float(np.isfinite(errors[:, 0]).mean()),
            median=(float(np.median(errors[:, 0])), float(np.median(errors[:, 1]))),
            scores=self._usual / (self._usual + errors[:, 0]),
        )


class Ladder:
    """The best map of each of a fixed series of sizes, climbed from the smallest sensible one.

    A step tries the best settings so far with as many landmarks as its size has room for, and at every 1, 2 and 5 all
    other settings too that keep about as many, and wider or narrower global descriptors. What is not
    better stays out, so the best never falls from a step to the next. Nothing depends on the budget but how far it is
    climbed; the end is where there is room for all landmarks and the uncompacted map is no better.

    Attributes:
        packer: of the whole source.
        judged: all that was judged to its end, in the order of trial.
    """

    def __init__(self, source: Source, codec: CodecName | None = None):
        self.packer, self._codec = Packer(source), codec
        self._seen: set[tuple[Settings, int]] = set()
        self._steps: list[tuple[int, Choice]] = []
        self.judged: list[Choice] = []

    @cached_property
    def folds(self) -> list[Fold]:
        """What there is to judge by."""
        return _folds(self.packer.source)

    @cached_property
    def jury(self) -> Jury:
        """Made when it is first asked."""
        return Jury(self.packer, self.folds)

    @cached_property
    def sizes(self) -> list[int]:
        """Bytes of the steps: from where every image has `COVER` landmarks (K-cover) to where all is kept."""
        p = self.packer
        need = cover(p.source, p.order, COVER)
        least = min(p.sizes(s)[max(need - 1, 0)] for s in all_settings(p.source, 0, self._codec) if s.per_landmark == 1)
        most = p.sizes(all_settings(p.source, 1 << 60, self._codec)[-1])[-1]
        found: list[int] = []
        for size in _series():
            if size >= least:
                found.append(size)
            if size >= most and found:
                return found
        raise AssertionError

    def best(self, budget: int, progress: Report = silent) -> Choice:
        """The best map of at most ``budget`` bytes; below the smallest step the best of that size alone."""
        sizes = [size for size in self.sizes if size <= budget]
        if not sizes:
            return self._climb(budget, 0, None)
        for i, size in enumerate(sizes):
            progress("judging", i, len(sizes))
            if i == len(self._steps) and not self._is_done():
                before = self._steps[-1] if self._steps else (0, None)
                self._steps.append((size, self._climb(size, *before)))
        progress("judging", len(sizes), len(sizes))
        return self._steps[: len(sizes)][-1][1]

    def _is_done(self) -> bool:
        """Whether the last step leaves nothing to gain: it had room for all landmarks, and the best is no worse than
        everything as it is."""
        if not self._steps or _leading(self._steps[-1][0]) not in OFTEN:
            return False
        size, best = self._steps[-1]
        all_kept = any(t.landmarks == len(self.packer.order) and t.size <= size for t in self.judged)
        return all_kept and best.score >= self.jury.full.score

    def steps(self, progress: Report = silent) -> list[Choice]:
        """The best at each step, to the last."""
        self.best(self.sizes[-1], progress)
        return [choice for _, choice in self._steps]

    def _climb(self, size: int, before: int, best: Choice | None) -> Choice:
        for settings in self._moves(size, before, best):
            count = self.packer.fit(settings, size)
            if (settings, count) in self._seen:
                continue
            self._seen.add((settings, count))
            found = self.jury.judge(Choice(settings, count, self.packer.size(settings, count)), best)
            if found is None:
                continue
            self.judged.append(found)
            if best is None or (found.score, found.landmarks) > (best.score, best.landmarks):
                best = found
        assert best is not None
        return best

    def _moves(self, size: int, before: int, best: Choice | None) -> list[Settings]:
        """What to try at a step: settings that can use more bytes than the step before had."""
        here = best.settings if best is not None else None
        count = len(self.packer.order)
        room: dict[Settings, int] = {}
        full: set[tuple[int, CodecName]] = set()  # all landmarks are there
        for s in all_settings(self.packer.source, size, self._codec):
            s = s if here is None else replace(s, global_dim=here.global_dim)
            if s.per_landmark > 1 and (s.row_bytes, s.codec) not in full:
                continue  # one more landmark is worth more than one more descriptor of another
            full.discard((s.row_bytes, s.codec))
            sizes = self.packer.sizes(s)
            fitting = int(np.searchsorted(sizes, size))
            if fitting >= count:
                full.add((s.row_bytes, s.codec))
            if sizes[-1] > before:
                room[s] = fitting
        most = max(room.values(), default=0)
        usable = [s for s in room if room[s] >= FEWEST * most]
        if here is None:
            return usable
        if _leading(size) not in OFTEN:
            return [here] if here in usable else usable[:1]
        widths = sorted({*global_sizes(self.packer.source), here.global_dim})
        others = [replace(here, global_dim=width) for width in _beside(widths, here.global_dim) if here in usable]
        return sorted(usable, key=lambda s: s != here) + others


def choose(
    source: Source,
    budget: int,
    codec: CodecName | None = None,
    progress: Report = silent,
    ladder: Ladder | None = None,
) -> tuple[Sections, list[Choice]]:
    """The best map within a budget.

    Args:
        budget: bytes of the file, at most.
        codec: only this one.
        ladder: of the source and the codec, where there is one already.

    Returns:
        Its sections, and what was judged: the chosen first, everything as it is last.

    Raises:
        InputError: the budget is too small for the images alone, or there are no landmarks.
    """
    if not len(source.positions):
        raise InputError("the source has no landmarks", "build it again, with images that overlap")
    with one_thread():
        if source.codec is not None:
            fixed = _as_packed(source)
            if codec is not None and codec is not fixed.codec:
                raise InputError(
                    f"this map is packed with the codec {fixed.codec}", "pack it again from the map that `build` wrote"
                )
            return _filled(Packer(source), fixed, budget)
        ladder = ladder or Ladder(source, codec)
        options = all_settings(ladder.packer.source, budget, codec)
        if not ladder.folds:
            usual = [s for s in options if s.per_landmark == 4 and (s.row_bytes == USUAL or codec is not None)]
            return _filled(ladder.packer, (usual or options)[0], budget)
        leanest = min(options, key=lambda s: ladder.packer.sizes(s)[0])
        if ladder.packer.estimate(leanest, budget) <= 1:
            ladder.packer.fit(leanest, budget)  # says now, before the long part, how small is too small
        best = ladder.best(budget, progress)
        assert best.settings is not None
        sections, chosen = _exactly(ladder.packer, best.settings, best.landmarks, budget)
        if chosen.landmarks != best.landmarks:  # its trees are larger than they were thought to be
            judged = ladder.jury.judge(chosen)
            assert judged is not None
            chosen = judged
        else:
            chosen = replace(best, size=chosen.size)
        others = sorted((t for t in ladder.judged if t is not best and t.size <= budget), key=lambda t: -t.score)
        return sections, [chosen, *others, ladder.jury.full]


def curve(
    source: Source, codec: CodecName | None = None, progress: Report = silent, ladder: Ladder | None = None
) -> list[Choice]:
    """The best at each size of a `Ladder`, from the smallest sensible one to where all is kept, and the uncompacted map
    last.

    Raises:
        InputError: the source keeps nothing to judge by.
    """
    check_judged(source)
    with one_thread():
        ladder = ladder or Ladder(source, codec)
        return [*ladder.steps(progress), ladder.jury.full]


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


def _standard_error(differences: np.ndarray) -> float:
    return float(differences.std() / np.sqrt(len(differences)))


def _series() -> Iterator[int]:
    """The sizes of all ladders, in bytes."""
    for power in range(2, 15):
        yield from (size * 10**power for size in SERIES)


def _leading(size: int) -> int:
    """The two leading digits."""
    return int(str(size)[:2])


def _beside(values: Sequence[int], value: int) -> list[int]:
    """The next smaller and the next larger of increasing values."""
    at = values.index(value)
    return [*values[max(0, at - 1) : at], *values[at + 1 : at + 2]]


def _filled(packer: Packer, settings: Settings, budget: int) -> tuple[Sections, list[Choice]]:
    """As many landmarks as there is room for, not judged."""
    sections, chosen = _exactly(packer, settings, packer.fit(settings, budget), budget)
    return sections, [chosen]


def _exactly(packer: Packer, settings: Settings, count: int, budget: int) -> tuple[Sections, Choice]:
    """A map of so many landmarks; of fewer where its trees do not fit."""
    while True:
        sections = {**packer.pack(settings, count), **packer.trees(count)}
        if size_of(sections) <= budget:
            return sections, Choice(settings, count, size_of(sections))
        if count == 1:
            raise InputError(f"a budget of {budget} bytes is too small for random trees", "give a larger --budget")
        count = max(1, count * 97 // 100)  # trees of fewer landmarks are a little larger for each


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
