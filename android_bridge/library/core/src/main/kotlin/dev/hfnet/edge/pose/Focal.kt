package dev.hfnet.edge.pose

import dev.hfnet.edge.Camera
import dev.hfnet.edge.Match2D3D
import kotlin.math.abs
import kotlin.math.exp
import kotlin.math.ln1p
import kotlin.math.min
import kotlin.math.pow

/** Poses of cameras whose focal length is only about known: it is found with the pose. */
internal object Focal {
    private val EXPONENTS = listOf(0, -1, 1, -2, 2, -3, 3, -4, 4) // of the fourth root of two: the nearest first
    private const val PLAIN = 0.5
    private const val ITERATIONS = 1000
    private const val MAX_STEPS = 30
    private const val SETTLED = 1e-7
    private const val WIDEST = 1.0 / 3
    private const val NARROWEST = 3.0

    /** The camera with the focal length at which most matches agree, and its pose; null where no pose was found. */
    fun estimate(
        matches: Match2D3D, camera: Camera, maxError: Double, solver: Solver, iterations: Int,
    ): Pair<Camera, RefinedPose>? {
        var best: RefinedPose? = null
        var at = camera
        for (exponent in EXPONENTS) {
            val tried = camera.withFocal(2.0.pow(exponent / 4.0))
            val found = Estimate.pose(matches, tried, maxError, solver, min(iterations, ITERATIONS))
            if (found != null && (best == null || found.inlierCount > best.inlierCount)) {
                best = found
                at = tried
            }
            if (best != null && best.inlierCount >= PLAIN * matches.size) break
        }
        return best?.let { refine(it, matches, at, camera, maxError) }
    }

    /** The camera and pose at which matches agree best, from one that is near; [stated] bounds the focal length. */
    fun refine(
        start: RefinedPose, matches: Match2D3D, near: Camera, stated: Camera, maxError: Double,
    ): Pair<Camera, RefinedPose> {
        var refined = start
        var camera = near
        for (k in 0 until MAX_STEPS) {
            val check = Intrinsics.check(refined, matches, camera) ?: break
            val step = ln1p(check.focal).coerceIn(-0.2, 0.25)
            val ratio = camera.focalX * exp(step) / stated.focalX
            if (!(ratio > WIDEST && ratio < NARROWEST)) break
            camera = camera.withFocal(exp(step))
            refined = Refinement.refineAgain(refined.pose, matches, camera, maxError)
            if (abs(step) < SETTLED) break
        }
        return camera to refined.with(covariance = Intrinsics.focalCovariance(refined, matches, camera))
    }
}
