package dev.hfnet.edge.rig

import dev.hfnet.edge.Match2D3D
import dev.hfnet.edge.Pose
import dev.hfnet.edge.pose.Equations
import dev.hfnet.edge.pose.LinearAlgebra
import dev.hfnet.edge.pose.Refinement
import dev.hfnet.edge.pose.Support
import dev.hfnet.edge.pose.median
import kotlin.math.abs
import kotlin.math.hypot
import kotlin.math.max

/** The pose of a rig in the matches of all its views, one list of them for each view. */
internal object RigRefinement {
    private const val STEPS = 12
    private const val SMALL_STEP = 1e-6
    private val NO_UNITS = DoubleArray(6) { 1.0 }

    /**
     * The pose at which all views' matches agree best, by reweighted least squares with a Cauchy loss; and the noise of
     * keypoints over the inlier threshold.
     */
    fun refine(rigFromMap: Pose, views: List<View>, matches: List<Match2D3D>, depth: Double): Pair<Pose, Double> {
        var pose = rigFromMap
        val units = DoubleArray(6) { if (it < 3) 1.0 else depth }
        for (share in doubleArrayOf(Refinement.COARSE, Refinement.PRECISE)) {
            for (k in 0 until STEPS) {
                val matrix = DoubleArray(36)
                val gradient = DoubleArray(6)
                for ((view, own) in views.zip(matches)) {
                    if (own.size == 0) continue
                    val said = Said(pose, view, own, hypot(share * view.maxError, view.noise(depth)))
                    for (i in matrix.indices) matrix[i] += said.matrix[i]
                    for (i in gradient.indices) gradient[i] += said.gradient[i]
                }
                val scaled = DoubleArray(36) {
                    matrix[it] * (units[it / 6] * units[it % 6]) + if (it % 7 == 0) 1e-12 else 0.0
                }
                val factor = LinearAlgebra.cholesky(scaled, 6) ?: break
                val step = LinearAlgebra.substitute(factor, DoubleArray(6) { gradient[it] * units[it] })
                pose = Refinement.retract(pose, DoubleArray(6) { -step[it] * units[it] })
                if (step.maxOf { abs(it) } < SMALL_STEP) break
            }
        }
        val near = ArrayList<Double>()
        for ((view, own) in views.zip(matches)) {
            for (error in Support.reprojectionErrors(view.camFromRig * pose, own, view.camera)) {
                if (error / view.maxError < 1) near.add(error / view.maxError)
            }
        }
        val noise = if (near.isEmpty()) 0.0 else median(near.toDoubleArray()) / Refinement.MEDIAN_OF_RAYLEIGH
        return pose to max(noise, Refinement.NOISE_FLOOR)
    }

    /**
     * (6, 6) of the rig's pose, as of `RefinedPose`; a view's drift, which all its matches share, counts once. Null:
     * the matches leave a direction open.
     */
    fun covariance(
        pose: Pose, views: List<View>, matches: List<Match2D3D>, noise: Double, depth: Double,
    ): DoubleArray? {
        val matrix = DoubleArray(36)
        for ((view, own) in views.zip(matches)) {
            if (own.size < 3) continue
            val said = Said(pose, view, own, noise * view.maxError)
            var alone = DoubleArray(36) { said.matrix[it] / (Refinement.INFLATION * Refinement.INFLATION) }
            val (position, rotation) = view.drift.position to view.drift.rotation
            if (position > 0 || rotation > 0) {
                val told = Adjoint.diagonal(rotation * rotation, position * position)
                val drift = Adjoint.carried(Adjoint.of(view.camFromRig.inverse), told)
                val spread = LinearAlgebra.pseudoInverse(alone, 6)
                for (i in spread.indices) spread[i] += drift[i] + if (i % 7 == 0) 1e-18 else 0.0
                alone = LinearAlgebra.pseudoInverse(spread, 6)
            }
            for (i in matrix.indices) matrix[i] += (alone[i] + alone[6 * (i % 6) + i / 6]) / 2
        }
        val units = DoubleArray(6) { if (it < 3) 1.0 else depth }
        val factor = LinearAlgebra.cholesky(DoubleArray(36) { matrix[it] * (units[it / 6] * units[it % 6]) }, 6)
        val inverse = LinearAlgebra.inverse(factor ?: return null, 6)
        val found = DoubleArray(36) { inverse[it] * (units[it / 6] * units[it % 6]) }
        return found.takeIf { all -> all.all { abs(it) <= Double.MAX_VALUE } }
    }

    /** Normal equations of a view's matches in the rig's tangent space, Cauchy's weights at [scale] pixels. */
    private class Said(pose: Pose, view: View, matches: Match2D3D, scale: Double) {
        val matrix: DoubleArray
        val gradient: DoubleArray

        init {
            val equations = Equations(6)
            val there = before(pose, view, matches)
            val seen = (view.camFromRig * pose).transform(there.xyz)
            val residuals = view.camera.project(seen)
            for (i in residuals.indices) residuals[i] -= there.xy[i]
            equations.reweighted(view.camera, seen, residuals, NO_UNITS, scale)
            val change = Adjoint.of(view.camFromRig)
            val weight = 1 / (scale * scale)
            matrix = Adjoint.pulledBack(change, DoubleArray(36) { equations.matrix[it] * weight })
            gradient = Adjoint.pulledBackGradient(change, DoubleArray(6) { equations.gradient[it] * weight })
        }

        /** Those that the camera can see. */
        private fun before(pose: Pose, view: View, matches: Match2D3D): Match2D3D {
            val at = view.camera.project((view.camFromRig * pose).transform(matches.xyz))
            return matches.take(BooleanArray(matches.size) {
                abs(at[2 * it]) <= Double.MAX_VALUE && abs(at[2 * it + 1]) <= Double.MAX_VALUE
            })
        }
    }
}
