package dev.hfnet.edge.methods

import dev.hfnet.edge.Features
import dev.hfnet.edge.LocalizationConfig
import dev.hfnet.edge.Match2D3D
import dev.hfnet.edge.Memory
import dev.hfnet.edge.Status
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.search.Covisibility
import dev.hfnet.edge.search.Matches
import dev.hfnet.edge.search.Matching
import dev.hfnet.edge.search.Place
import dev.hfnet.edge.search.Retrieval
import dev.hfnet.edge.shell.Clock

/**
 * Seeks landmarks in the places that the prior frames show, one place at a time, the largest first; where no pose is
 * accepted there, in those of the next most similar reference images (HF-Net, figure 2).
 */
internal class Hierarchical(private val map: LocalizationMap, private val config: LocalizationConfig) : Search {
    override fun candidates(query: Query, clock: Clock): Candidates {
        val features = query.features
        if (features == null || features.size == 0) return Candidates.none(Status.NO_KEYPOINTS)
        val count = config.priorFrameCount ?: PRIOR_FRAMES
        val ranked = clock.time("retrieve") {
            Retrieval.priorFrames(map, features.globalDescriptor, count * (1 + FURTHER), query.among, query.memory)
        }
        val first = ranked.copyOf(minOf(count, ranked.size))
        val further = ranked.copyOfRange(first.size, ranked.size)
        return Candidates(
            matches(features, first, 0, query.memory, clock), first,
            further = matches(features, further, first.size, query.memory, clock),
        )
    }

    /** In the places of [frames], which are numbered [from] some number on. */
    private fun matches(
        features: Features, frames: IntArray, from: Int, memory: Memory, clock: Clock,
    ): Sequence<Match2D3D> {
        var number = from
        return inEachPlace(map, frames, memory, clock, "match") { place ->
            val compared = features.compared(map.codec)
            val found = Matching.matchCompared(map, compared, features.size, place.landmarks, place.landmarkCount, memory)
            matched(map, features, found, memory.part("place ${number++}"))
        }
    }

    companion object {
        const val PRIOR_FRAMES = 10
        private const val FURTHER = 3
    }
}

/** What a search finds among the landmarks of each place, made as it is asked for. */
internal fun inEachPlace(
    map: LocalizationMap, frames: IntArray, memory: Memory, clock: Clock, stage: String, search: (Place) -> Match2D3D,
): Sequence<Match2D3D> = sequence {
    val places = clock.time("cluster") {
        Covisibility.cluster(map, frames, 0, frames.size, memory).filter { it.landmarkCount > 0 }
    }
    for (place in places) yield(clock.time(stage) { search(place) })
}

/** Rows of keypoints and landmarks, as points in [memory]. */
internal fun matched(map: LocalizationMap, features: Features, found: Matches, memory: Memory): Match2D3D {
    val n = found.size
    val xy = memory.doubles("matched: xy", 2 * n)
    for (i in 0 until n) System.arraycopy(features.keypoints, 2 * found.keypoints[i], xy, 2 * i, 2)
    return Match2D3D(
        xy, map.positions(found.landmarks, n, memory, "matched: xyz"),
        found.keypoints.copyInto(memory.ints("matched: keypoints", n), 0, 0, n),
        found.landmarks.copyInto(memory.ints("matched: landmarks", n), 0, 0, n), "", n,
    )
}
