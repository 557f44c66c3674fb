package dev.hfnet.edge

import dev.hfnet.edge.methods.Candidates
import dev.hfnet.edge.methods.Query
import dev.hfnet.edge.pose.LinearAlgebra
import dev.hfnet.edge.pose.medianOf
import dev.hfnet.edge.prior.Known
import dev.hfnet.edge.shell.Clock
import dev.hfnet.edge.trust.Examined
import dev.hfnet.edge.trust.Examiner
import dev.hfnet.edge.trust.InTolerance
import dev.hfnet.edge.trust.Judge
import kotlin.math.max
import kotlin.math.sqrt

/** What a search found in a map, and how that is examined; [tile] is its number in a place, null: the map is of one file. */
internal class Found(
    val pipeline: Pipeline, val query: Query, val known: Known?, val candidates: Candidates, clock: Clock, val tile: Int?,
) {
    val map = pipeline.map
    val examiner = Examiner(
        map, query.features, pipeline.solver, pipeline.config.iterations, pipeline.config.maxError * query.pixel, clock,
        query.memory,
    )
    var examined = 0
}

/** The best of all candidates: each is examined, the leading one is judged, and a pose is given or refused. */
internal object Best {
    const val PLACES = 3 // candidates of a map that are compared, however good the first is

    private class One(val of: Found, val examined: Examined)

    /**
     * The first few candidates of each map of a round are compared; further ones, and then those of the next round, are
     * tried until a pose is accepted, and agrees with what is known.
     */
    fun of(rounds: Sequence<List<Found>>, camera: Camera, clock: Clock): LocalizationResult {
        var best = LocalizationResult(Status.NO_CANDIDATES)
        var of: Found? = null // what is best
        val examined = ArrayList<One>()
        val agreeing = ArrayList<One>()
        var tried: Pair<Found, Match2D3D>? = null
        var against: String? = null
        var leader: One? = null
        for (founds in rounds) {
            if (of == null && founds.isNotEmpty()) {
                of = founds[0]
                best = LocalizationResult(of.candidates.abstention)
            }
            for (batch in batches(founds)) {
                var newest: One? = null
                for ((found, matches) in batch) {
                    tried = tried ?: (found to matches)
                    val seekFocal = found.pipeline.config.refineFocal
                    val one = found.examiner.examine(matches, camera, seekFocal, found.examined)?.let { One(found, it) } ?: continue
                    found.examined++
                    examined.add(one) // also as a rival, for what is known may be wrong
                    val refined = one.examined.refined
                    val contradiction = found.known?.contradiction(found.map.fromWorld(refined.pose), refined.positionStd)
                    against = against ?: contradiction
                    if (contradiction == null) {
                        newest = one
                        agreeing.add(one)
                    }
                }
                var ahead: One? = null
                for (one in agreeing) if (ahead == null || one.examined.isAheadOf(ahead.examined)) ahead = one
                if (ahead != null && ahead !== leader) {
                    leader = ahead
                    of = ahead.of
                    best = judged(ahead, examined, clock)
                } else if (newest != null && leader != null && newest.foundBy != leader.foundBy) {
                    // Of another method: it may have more to say for a pose that keypoints say less for.
                    val other = judged(newest, examined, clock)
                    if (other.wrong < best.wrong) {
                        of = newest.of
                        best = other
                    }
                }
                if (best.status == Status.LOCALIZED) break
            }
            if (best.status == Status.LOCALIZED) break
        }
        if (leader == null && tried != null) {
            of = tried.first
            best = LocalizationResult(Status.TOO_FEW_MATCHES, matches = tried.second.inWorld(of.map))
        }
        if (leader == null && against != null) best = best.with(status = Status.REJECTED, notes = listOf(against))
        val frames = of?.candidates?.priorFrames ?: IntArray(0)
        return best.with(
            coarse = if (best.status == Status.COARSE) of!!.map.camFromWorld(frames[0]) else null,
            priorFrames = frames, tile = of?.tile, milliseconds = clock.milliseconds,
        )
    }

    private val One.foundBy get() = examined.matches.foundBy

    /** Candidates that are compared with each other before a pose is given: the first few of each map, then one by one. */
    private fun batches(founds: List<Found>): Sequence<Sequence<Pair<Found, Match2D3D>>> = sequence {
        val likely = founds.map { it to it.candidates.matches.iterator() }
        yield(
            sequence {
                for ((found, matches) in likely) for (k in 0 until PLACES) if (matches.hasNext()) yield(found to matches.next())
            },
        )
        for ((found, rest) in likely) {
            while (rest.hasNext()) yield(sequenceOf(found to rest.next()))
            for (matches in found.candidates.further) yield(sequenceOf(found to matches))
        }
    }

    /** Accepts a pose or not, and moves it and its matches from the landmarks' frame to the world. */
    private fun judged(of: One, all: List<One>, clock: Clock): LocalizationResult = clock.time("trust") {
        val one = of.examined
        val map = of.of.map
        val config = of.of.pipeline.config
        val examiner = of.of.examiner
        val memory = of.of.query.memory
        val others = all.map { if (it.of.map === map) it.examined else it.examined.moved(it.of.map.origin, map.origin) }
        val (evidence, intrinsics) = examiner.evidence(one, examiner.rival(one, others), of.of.candidates.chance)
        val refined = one.refined
        val shift = intrinsics?.shift ?: 0.0
        val inTolerance = InTolerance.of(refined.positionStd, refined.rotationStd, shift, config.tolerance, one.depth)
        val verdict =
            Judge.bundled.decide(evidence.byName(), inTolerance, one.held, config.maxWrong, of.of.pipeline.calibration)
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

/** With what is [known] a query is sought where that allows and given where that agrees; else without. */
internal inline fun searched(
    known: Known?, clock: Clock, search: (known: Known?) -> LocalizationResult,
): LocalizationResult {
    val result = search(known)
    if (known == null || result.status == Status.LOCALIZED) return result
    val free = search(null)
    if (free.pose == null) return result.with(milliseconds = clock.milliseconds)
    return free.with(notes = listOf(Pipeline.dropped(known, free)))
}
