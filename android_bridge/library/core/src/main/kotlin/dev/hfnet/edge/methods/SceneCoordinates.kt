package dev.hfnet.edge.methods

import dev.hfnet.edge.Features
import dev.hfnet.edge.LocalizationConfig
import dev.hfnet.edge.Match2D3D
import dev.hfnet.edge.Memory
import dev.hfnet.edge.MismatchException
import dev.hfnet.edge.Status
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.map.SceneTree
import dev.hfnet.edge.search.Matches
import dev.hfnet.edge.search.ParallelSearch
import dev.hfnet.edge.search.Retrieval
import dev.hfnet.edge.shell.Clock
import java.util.Arrays

/**
 * Asks a network that knows one place which landmark each keypoint is of. One that takes an image is asked with each of the
 * prior frames, and what it says of landmarks that none of these observes is not believed (Li et al., section 4.5).
 */
internal class SceneCoordinates(
    private val map: LocalizationMap, private val config: LocalizationConfig, scene: SceneLabels?,
) : Search {
    private val tree = SceneTree.of(map)
    private val network = scene
        ?: throw MismatchException("the method asks for the scene network of the map", "name it too: scene.tflite")

    override fun candidates(query: Query, clock: Clock): Candidates {
        val features = query.features
        if (features == null || features.size == 0) return Candidates.none(Status.NO_KEYPOINTS)
        if (!network.takesImage) {
            val found = matches(features, clock, null, 0)
            return Candidates(if (found.size > 0) sequenceOf(found) else emptySequence())
        }
        var seen = IntArray(0)
        val priors = clock.time("retrieve") {
            val count = config.priorFrameCount ?: Hierarchical.PRIOR_FRAMES
            val frames = Retrieval.priorFrames(map, features.globalDescriptor, count, query.among, query.memory)
            seen = ParallelSearch.seenBy(map, frames)
            frames
        }
        return Candidates(priors.asSequence().map { matches(features, clock, seen, it) }, priors)
    }

    private fun matches(features: Features, clock: Clock, seen: IntArray?, image: Int): Match2D3D =
        clock.time("predict") {
            val landmarks = tree.landmarksOf(network.predict(features.descriptors.copyOf(features.size * map.meta.localDim), image))
            val keypoints = landmarks.indices.filter {
                landmarks[it] >= 0 && (seen == null || Arrays.binarySearch(seen, landmarks[it]) >= 0)
            }.toIntArray()
            val found = Matches(keypoints, IntArray(keypoints.size) { landmarks[keypoints[it]] })
            matched(map, features, found, Memory())
        }
}
