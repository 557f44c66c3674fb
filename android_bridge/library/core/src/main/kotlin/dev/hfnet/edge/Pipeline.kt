package dev.hfnet.edge

import dev.hfnet.edge.map.Calibration
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.methods.Candidates
import dev.hfnet.edge.methods.Query
import dev.hfnet.edge.methods.SceneLabels
import dev.hfnet.edge.pose.Solver
import dev.hfnet.edge.pose.Support
import dev.hfnet.edge.prior.Known
import dev.hfnet.edge.search.Seen
import dev.hfnet.edge.shell.Clock
import dev.hfnet.edge.trust.Landmarks
import dev.hfnet.edge.trust.SecondLook
import dev.hfnet.edge.pose.spread
import kotlin.math.max
import kotlin.math.min

/**
 * Everything after the networks: the method searches, and for each of its candidates: pose, second look, accept?
 *
 * Threads may share it.
 */
internal class Pipeline(
    val map: LocalizationMap, val config: LocalizationConfig, val solver: Solver, scene: SceneLabels?,
) {
    val search = config.method.open(map, scene, config)
    val calibration = Calibration.of(map)

    /** The pose of a query. With what is [known] it is sought where that allows and given where that agrees; else without. */
    fun localize(query: Query, camera: Camera, known: Known?, clock: Clock): LocalizationResult =
        searched(known, clock) { Best.of(sequenceOf(listOf(found(query, it, clock))), camera, clock) }

    /** What the method finds, where what is [known] allows. */
    fun found(query: Query, known: Known?, clock: Clock, tile: Int? = null): Found {
        val asked = if (known == null) query else Query(query.features, query.pixel, query.memory, known.among)
        return Found(this, asked, known, search.candidates(asked, clock), clock, tile)
    }

    /**
     * The pose of a query whose pose is about known: landmarks are sought near where they should be, and nowhere else.
     *
     * @param expected cam_from_map, relative to the map's origin. @param depth of the scene, map units.
     * @param radius pixels about each landmark.
     */
    fun track(
        query: Query, camera: Camera, expected: Pose, depth: Double, radius: Double, clock: Clock,
    ): LocalizationResult {
        val features = query.features
        if (features == null || features.size == 0) {
            return LocalizationResult(Status.NO_KEYPOINTS, milliseconds = clock.milliseconds)
        }
        val memory = query.memory.part("track")
        val near = clock.time("track") {
            val (views, _) = SecondLook.nearestViews(map, expected, depth, memory)
            val count = Seen(map, views, 0, views.size, memory).union("track: landmarks") { true }
            val ids = memory.ints("track: landmarks", count)
            val positions = map.positions(ids, count, memory, "track: positions")
            val at = Support.projected(expected, positions, count, camera, memory)
            var n = 0
            for (i in 0 until count) {
                val x = at[2 * i]
                val y = at[2 * i + 1]
                if (x > 0 && y > 0 && x < camera.width && y < camera.height) ids[n++] = ids[i]
            }
            val most = max(MIN_TRACKED, (TRACKED * query.pixel / radius).toInt()) // the second look takes all
            if (n > most) { // neighbours have neighbouring numbers, so these are spread evenly
                for (k in 0 until most) ids[k] = ids[spread(n - 1, most, k)]
                n = most
            }
            val landmarks = Landmarks.of(map, ids, n, memory)
            SecondLook.guidedMatches(map, features, camera, expected, landmarks, radius, memory).matches
        }
        val share = config.maxError * query.pixel / radius
        val found = if (near.size > 0) sequenceOf(near) else emptySequence()
        val candidates = Candidates(found, abstention = Status.TOO_FEW_MATCHES, chance = min(0.9, share * share)) // of areas
        return Best.of(sequenceOf(listOf(Found(this, query, null, candidates, clock, null))), camera, clock)
    }

    companion object {
        private const val TRACKED = 36_000
        private const val MIN_TRACKED = 300

        /** Why a prior was, given the pose that was found without it. */
        fun dropped(known: Known, free: LocalizationResult): String {
            val why = known.contradiction(free.pose!!, free.candidate!!.positionStd)
            return "the prior was dropped: ${why ?: "nothing was found among the reference images that it allows"}"
        }
    }
}
