package dev.hfnet.edge.trust

import dev.hfnet.edge.Camera
import dev.hfnet.edge.Features
import dev.hfnet.edge.Match2D3D
import dev.hfnet.edge.Memory
import dev.hfnet.edge.Pose
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.pose.Estimate
import dev.hfnet.edge.pose.Focal
import dev.hfnet.edge.pose.Intrinsics
import dev.hfnet.edge.pose.IntrinsicsCheck
import dev.hfnet.edge.pose.RefinedPose
import dev.hfnet.edge.pose.Refinement
import dev.hfnet.edge.pose.Solver
import dev.hfnet.edge.pose.Support
import dev.hfnet.edge.shell.Clock
import kotlin.math.max
import kotlin.math.min
import kotlin.math.sqrt

/** How a candidate is examined: with which solver, within how many pixels. */
internal class Examiner(
    private val map: LocalizationMap,
    private val query: Features?,
    private val solver: Solver,
    private val iterations: Int,
    private val maxError: Double,
    private val clock: Clock,
    private val memory: Memory = Memory(),
) {
    /**
     * The pose of a place's matches after a second look, or null where too few of them agree on one. Poses of different
     * [number] live beside each other; landmarks only those of the first few and of the last one.
     */
    fun examine(candidate: Match2D3D, stated: Camera, seekFocal: Boolean, number: Int = 0): Examined? {
        val own = memory.part("examined $number")
        val kept = memory.part("landmarks ${min(number, COMPARED)}")
        val again = query != null && query.size > 0 && candidate.landmarks != null
        var camera = stated
        var matches = candidate
        var first = clock.time("pose") {
            if (seekFocal) {
                val both = Focal.estimate(matches, camera, maxError, solver, iterations)
                if (both != null) camera = both.first
                both?.second
            } else {
                Estimate.pose(matches, camera, maxError, solver, iterations, again, own.part("first"))
            }
        } ?: return null
        if (first.inlierCount < LEAST) return null
        val firstInliers = first.inlierCount
        var cells: Match2D3D? = null
        if (again && matches.keypoints == null) {
            clock.time("second_look") {
                cells = matches.take(first.inliers)
                val (fine, pose) = SecondLook.atKeypoints(map, query!!, camera, matches, first, maxError, kept)
                matches = fine
                first = pose
            }
        }
        var refined = first
        var look: SecondLook? = null
        if (again && matches.keypoints != null) {
            clock.time("second_look") {
                val again = SecondLook.of(map, query!!, camera, matches, first, maxError, null, own, kept)
                refined = Refinement.refineAgain(first.pose, again.matches, camera, maxError, false, own.part("refined"))
                cells?.let { refined = SecondLook.besideCells(refined, again.matches, it, camera, maxError) }
                if (seekFocal) {
                    val both = Focal.refine(refined, again.matches, camera, stated, maxError)
                    camera = both.first
                    refined = both.second
                }
                look = again
            }
        }
        return examined(camera, candidate, firstInliers, refined, look ?: SecondLook.none(matches.own()), seekFocal)
    }

    private fun examined(
        camera: Camera, candidate: Match2D3D, firstInliers: Int, found: RefinedPose, look: SecondLook, seekFocal: Boolean,
    ): Examined? {
        val refined = if (seekFocal) found else Refinement.withCovariance(found, look.matches, camera, memory)
        val inliers = look.matches.take(refined.inliers, memory.part("examine: inliers"))
        val n = inliers.size
        if (n < LEAST) return null
        val seen = memory.doubles("examine: seen", 3 * n)
        refined.pose.transform(inliers.xyz, n, seen)
        val errors = Support.reprojectionErrors(refined.pose, look.guided.matches, camera, memory)
        return Examined(
            camera, look.matches, refined, look, firstInliers, candidate.size,
            Evidence.nearCount(errors, maxError, look.guided.matches.size),
            SecondLook.depthOf(refined.pose, inliers, memory), Support.holds(seen, maxError / camera.shortFocal, n, memory),
        )
    }

    /** Support of the best other pose over that of [one]: of [others], of what its landmarks are taken for, of its flip. */
    fun rival(one: Examined, others: List<Examined>): Double {
        val camera = one.camera
        var support = 0.0
        for (other in others) if (one.isContradictedBy(other, maxError, memory)) support = max(support, other.near)
        if (query != null && one.matches.landmarks != null && one.matches.keypoints != null) {
            val elsewhere =
                Rivals.alternatives(map, query, one.matches, one.refined, camera, maxError, one.look.landmarks, memory)
            val found = Estimate.first(elsewhere, camera, maxError, solver, min(iterations, RIVAL_ITERATIONS), memory)
            val agreeing = if (found == null) 0 else Support.count(found, elsewhere, camera, maxError, memory)
            if (found != null && agreeing >= Rivals.FEW && one.isAnotherThan(found)) {
                val guided = SecondLook.guidedMatches(map, query, camera, found, one.look.landmarks, maxError, memory)
                val refined = Refinement.refineAgain(found, guided.matches, camera, maxError, false, memory)
                support = max(support, Evidence.nearCount(refined.errors, maxError, refined.size))
            }
        }
        var strongest = support / max(1.0, one.near)
        val flipped = Rivals.flip(one.refined, one.matches, camera, maxError, memory)
        if (flipped != null && one.isAnotherThan(flipped.pose)) {
            val errors = memory.doubles("rival: own errors", one.refined.size)
            val n = one.refined.inlierErrors(errors)
            val own = Evidence.nearCount(errors, maxError, n)
            strongest = max(strongest, Evidence.nearCount(flipped.errors, maxError, flipped.size) / max(1.0, own))
        }
        return strongest
    }

    /** What a pose is judged by, and what its inliers say of the camera; of the first inliers what is beyond [chance]. */
    fun evidence(one: Examined, rival: Double, chance: Double): Pair<Evidence, IntrinsicsCheck?> {
        val guided = one.look.guided.matches
        val intrinsics = Intrinsics.check(one.refined, one.matches, one.camera, memory)
        val residuals = Support.projected(one.refined.pose, guided.xyz, guided.size, one.camera, memory)
        for (i in 0 until 2 * guided.size) residuals[i] -= guided.xy[i]
        val ratio = max(0.0, one.firstInliers.toDouble() / one.firstMatches - chance) / (1 - chance)
        val keypoints = query?.keypoints ?: guided.xy
        val evidence = Evidence.of(
            ratio, one.look, residuals, one.refined, intrinsics, rival, keypoints, query?.size ?: guided.size, one.camera,
            maxError, one.depth, memory,
        )
        return evidence to intrinsics
    }

    private companion object {
        const val LEAST = 6
        const val COMPARED = 3
        const val RIVAL_ITERATIONS = 1000
    }
}

/** A pose that a place supports. */
internal class Examined(
    /** That the pose is of; not the stated one where its focal length was to be found. */
    val camera: Camera,
    /** Of the second look; of the method, where there was none. */
    val matches: Match2D3D,
    /** Relative to the map's origin, in these matches. */
    val refined: RefinedPose,
    val look: SecondLook,
    val firstInliers: Int,
    val firstMatches: Int,
    val near: Double,
    /** Median, of the inliers, map units. */
    val depth: Double,
    /** The inliers hold a camera in place. */
    val held: Boolean,
) {
    /** Places are compared by whether they hold a camera, then by their near landmarks over what chance makes of those. */
    fun isAheadOf(other: Examined): Boolean = if (held != other.held) held else share > other.share

    private val share get() = near / sqrt(look.guided.expectedCount + 100.0)

    /** The same among points relative to another origin, [to] in the place of [from], world; itself where that is the same. */
    fun moved(from: DoubleArray, to: DoubleArray): Examined {
        val by = DoubleArray(3) { from[it] - to[it] }
        if (by.all { it == 0.0 }) return this
        val pose = refined.pose
        val back = Pose(pose.quaternion, DoubleArray(3)).transform(by)
        val there = Pose(pose.quaternion, DoubleArray(3) { pose.translation[it] - back[it] })
        val xyz = DoubleArray(3 * matches.size) { matches.xyz[it] + by[it % 3] }
        return Examined(
            camera, matches.with(xyz = xyz), refined.with(pose = there), look, firstInliers, firstMatches, near, depth, held,
        )
    }

    fun isAnotherThan(pose: Pose): Boolean = Support.apart(refined.pose, pose, depth)

    /** Whether what supports another place does not fit this pose. */
    fun isContradictedBy(other: Examined, maxError: Double, memory: Memory = Memory()): Boolean {
        if (other.held || !isAnotherThan(other.refined.pose)) return isAnotherThan(other.refined.pose)
        val own = other.matches.take(other.refined.inliers, memory.part("contradiction: inliers"))
        return Support.count(refined.pose, own, camera, maxError, memory) < 0.5 * own.size
    }
}
