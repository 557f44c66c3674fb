package dev.hfnet.edge.methods

import dev.hfnet.edge.LocalizationConfig
import dev.hfnet.edge.SearchLimitException
import dev.hfnet.edge.Status
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.map.RandomTrees
import dev.hfnet.edge.map.TreeOrder
import dev.hfnet.edge.search.ParallelSearch
import dev.hfnet.edge.search.Retrieval
import dev.hfnet.edge.shell.Clock

/**
 * Parallel search and its halves (Zhang et al., figure 3): landmarks of prior [frames], in prior leaves by [order], or both.
 */
internal class Parallel(
    private val map: LocalizationMap,
    private val config: LocalizationConfig,
    private val frames: Boolean,
    private val order: TreeOrder?,
) : Search {
    private val trees = order?.let { RandomTrees.of(map) }

    override fun candidates(query: Query, clock: Clock): Candidates {
        val features = query.features
        if (features == null || features.size == 0) return Candidates.none(Status.NO_KEYPOINTS)
        val priors = if (!frames) IntArray(0) else clock.time("retrieve") {
            val count = config.priorFrameCount ?: PRIOR_FRAMES
            Retrieval.priorFrames(map, features.globalDescriptor, count, query.among, query.memory)
        }
        val descriptors = features.descriptors.copyOf(features.size * map.meta.localDim)
        try {
            val own = if (trees == null) emptyList() else clock.time("trees") {
                val count = config.priorLeafCount
                trees.landmarks(trees.priorLeaves(descriptors, map.meta.localDim, count, order!!), count)
            }
            return clock.time("match") {
                val shared = ParallelSearch.seenBy(map, priors)
                val anything = shared.isNotEmpty() || own.any { it.isNotEmpty() }
                val found = ParallelSearch.search(map, descriptors, shared, own)
                val matches = matched(map, features, found, query.memory.part("place"))
                Candidates(if (anything) sequenceOf(matches) else emptySequence(), priors)
            }
        } catch (e: SearchLimitException) {
            return Candidates.none(Status.SEARCH_LIMIT, priors)
        }
    }

    private companion object {
        const val PRIOR_FRAMES = 20
    }
}
