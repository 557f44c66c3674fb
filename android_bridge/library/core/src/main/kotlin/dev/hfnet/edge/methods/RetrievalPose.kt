package dev.hfnet.edge.methods

import dev.hfnet.edge.LocalizationConfig
import dev.hfnet.edge.Status
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.search.Retrieval
import dev.hfnet.edge.shell.Clock

/** Says near which reference image a query was taken, where there is anything to see in it (DenserNet's evaluation). */
internal class RetrievalPose(private val map: LocalizationMap, private val config: LocalizationConfig) : Search {
    override fun candidates(query: Query, clock: Clock): Candidates {
        val features = query.features
        if (features == null || features.size == 0) return Candidates.none(Status.NO_KEYPOINTS)
        val frames = clock.time("retrieve") {
            val count = config.priorFrameCount ?: Hierarchical.PRIOR_FRAMES
            Retrieval.priorFrames(map, features.globalDescriptor, count, query.among, query.memory)
        }
        return Candidates.none(if (frames.isEmpty()) Status.NO_CANDIDATES else Status.COARSE, frames)
    }
}
