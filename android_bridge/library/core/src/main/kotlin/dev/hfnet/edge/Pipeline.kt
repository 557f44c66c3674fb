package dev.hfnet.edge

import dev.hfnet.edge.map.Calibration
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.methods.Candidates
import dev.hfnet.edge.methods.Query
import dev.hfnet.edge.methods.SceneLabels
import dev.hfnet.edge.pose.LinearAlgebra
import dev.hfnet.edge.pose.Solver
import dev.hfnet.edge.pose.Support
import dev.hfnet.edge.pose.medianOf
import dev.hfnet.edge.prior.Known
import dev.hfnet.edge.search.Seen
import dev.hfnet.edge.shell.Clock
import dev.hfnet.edge.trust.Examined
import dev.hfnet.edge.trust.Examiner
import dev.hfnet.edge.trust.InTolerance
import dev.hfnet.edge.trust.Judge
import dev.hfnet.edge.trust.Landmarks
import dev.hfnet.edge.trust.SecondLook
import dev.hfnet.edge.pose.spread
import kotlin.math.max
import kotlin.math.min
import kotlin.math.sqrt

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
    fun localize(query: Query, camera: Camera, known: Known?, clock: Clock): LocalizationResult {
        if (known == null) return bestOf(search.candidates(query, clock), query, camera, null, clock)
        val allowed = Query(query.features, query.pixel, query.memory, known.among)
        val result = bestOf(search.candidates(allowed, clock), allowed, camera, known, clock)
        if (result.status == Status.LOCALIZED) return result
        val free = bestOf(search.candidates(query, clock), query, camera, null, clock)
        if (free.pose == null) return result.with(milliseconds = clock.milliseconds)
        return free.with(notes = listOf(dropped(known, free)))
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
        return bestOf(candidates, query, camera, null, clock)
    }

    /** The first few candidates are compared; further ones are tried until a pose is accepted, and agrees with what is known. */
    private fun bestOf(
        candidates: Candidates, query: Query, camera: Camera, known: Known?, clock: Clock,
    ): LocalizationResult {
        val maxError = config.maxError * query.pixel
        val examiner = Examiner(map, query.features, solver, config.iterations, maxError, clock, query.memory)
        var best = LocalizationResult(candidates.abstention)
        val examined = ArrayList<Examined>()
        val agreeing = ArrayList<Examined>()
        var tried: Match2D3D? = null
        var against: String? = null
        var leader: Examined? = null
        for (batch in batches(candidates)) {
            var newest: Examined? = null
            for (matches in batch) {
                tried = tried ?: matches
                val one = examiner.examine(matches, camera, config.refineFocal, examined.size) ?: continue
                examined.add(one) // also as a rival, for what is known may be wrong
                val found = known?.contradiction(map.fromWorld(one.refined.pose), one.refined.positionStd)
                against = against ?: found
                if (found == null) {
                    newest = one
                    agreeing.add(one)
                }
            }
            var ahead: Examined? = null
            for (one in agreeing) if (ahead == null || one.isAheadOf(ahead)) ahead = one
            if (ahead != null && ahead !== leader) {
                leader = ahead
                best = judged(examiner, ahead, examined, candidates.chance, clock, query.memory)
            } else if (newest != null && leader != null && newest.matches.foundBy != leader.matches.foundBy) {
                // Of another method: it may have more to say for a pose that keypoints say less for.
                val other = judged(examiner, newest, examined, candidates.chance, clock, query.memory)
                if (other.wrong < best.wrong) best = other
            }
            if (best.status == Status.LOCALIZED) break
        }
        if (leader == null && tried != null) {
            best = LocalizationResult(Status.TOO_FEW_MATCHES, matches = tried.inWorld(map))
        }
        if (leader == null && against != null) best = best.with(status = Status.REJECTED, notes = listOf(against))
        val frames = candidates.priorFrames
        return best.with(
            coarse = if (best.status == Status.COARSE) map.camFromWorld(frames[0]) else null,
            priorFrames = frames, milliseconds = clock.milliseconds,
        )
    }

    /** Candidates that are compared with each other before a pose is given: the first few, then one by one. */
    private fun batches(candidates: Candidates): Sequence<Sequence<Match2D3D>> = sequence {
        val likely = candidates.matches.iterator()
        yield(sequence { for (k in 0 until PLACES) if (likely.hasNext()) yield(likely.next()) })
        while (likely.hasNext()) yield(sequenceOf(likely.next()))
        for (matches in candidates.further) yield(sequenceOf(matches))
    }

    /** Accepts a pose or not, and moves it and its matches from the landmarks' frame to the world. */
    private fun judged(
        examiner: Examiner, one: Examined, examined: List<Examined>, chance: Double, clock: Clock, memory: Memory,
    ): LocalizationResult = clock.time("trust") {
        val (evidence, intrinsics) = examiner.evidence(one, examiner.rival(one, examined), chance)
        val refined = one.refined
        val shift = intrinsics?.shift ?: 0.0
        val inTolerance = InTolerance.of(refined.positionStd, refined.rotationStd, shift, config.tolerance, one.depth)
        val verdict = Judge.bundled.decide(evidence.byName(), inTolerance, one.held, config.maxWrong, calibration)
        val inliers = one.matches.take(refined.inliers, memory.part("judged: inliers"))
        val errors = memory.doubles("judged: errors", inliers.size)
        refined.inlierErrors(errors)
        val candidate = Candidate(
            refined.covariance, medianOf(errors, inliers.size), inliers.size, one.firstInliers,
            one.firstInliers.toDouble() / one.firstMatches, one.depth,
            spreadOf(inliers.xy, inliers.size) / max(one.camera.width, one.camera.height),
            principalSpread(inliers.xyz, inliers.size), evidence, intrinsics, one.camera,
            doubleArrayOf(config.tolerance.positionAt(one.depth), config.tolerance.rotation),
            refined.inliers.copyOf(one.matches.size),
        )
        LocalizationResult(
            if (verdict.accepted) Status.LOCALIZED else if (verdict.ambiguous) Status.AMBIGUOUS else Status.REJECTED,
            if (verdict.accepted) map.fromWorld(refined.pose) else null,
            verdict.probability, verdict.wrong, candidate, one.matches.inWorld(map),
        )
    }

    companion object {
        const val PLACES = 3
        private const val TRACKED = 36_000
        private const val MIN_TRACKED = 300

        /** Why a prior was, given the pose that was found without it. */
        fun dropped(known: Known, free: LocalizationResult): String {
            val why = known.contradiction(free.pose!!, free.candidate!!.positionStd)
            return "the prior was dropped: ${why ?: "nothing was found among the reference images that it allows"}"
        }

        /** Root mean squared distance of points in the plane from their middle. */
        private fun spreadOf(xy: DoubleArray, n: Int): Double {
            val middle = DoubleArray(2)
            for (i in 0 until 2 * n) middle[i % 2] += xy[i] / n
            var sum = 0.0
            for (i in 0 until 2 * n) sum += (xy[i] - middle[i % 2]) * (xy[i] - middle[i % 2])
            return sqrt(sum / n)
        }

        /** Standard deviations of points in space along their principal axes, the largest first. */
        private fun principalSpread(xyz: DoubleArray, n: Int): DoubleArray {
            val middle = DoubleArray(3)
            for (i in 0 until 3 * n) middle[i % 3] += xyz[i] / n
            val moments = DoubleArray(9)
            for (i in 0 until n) {
                for (k in 0 until 9) {
                    moments[k] += (xyz[3 * i + k / 3] - middle[k / 3]) * (xyz[3 * i + k % 3] - middle[k % 3])
                }
            }
            val (squares, _) = LinearAlgebra.eigen(moments, 3)
            return DoubleArray(3) { sqrt(max(0.0, squares[it]) / n) }
        }
    }
}
