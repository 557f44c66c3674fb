package dev.hfnet.edge.pose

import dev.hfnet.edge.Camera
import dev.hfnet.edge.Match2D3D
import dev.hfnet.edge.Memory
import dev.hfnet.edge.Pose
import kotlin.math.abs
import kotlin.math.exp
import kotlin.math.hypot
import kotlin.math.max
import kotlin.math.sqrt

/** How far the camera's description is off, as the inliers have it. */
public class IntrinsicsCheck internal constructor(
    /** True focal length over the stated one, minus 1; its standard deviation. */
    public val focal: Double,
    public val focalStd: Double,
    /** By which the principal point is off, pixels; its standard deviation, of the less certain coordinate. */
    public val centerX: Double,
    public val centerY: Double,
    public val centerStd: Double,
    /** How far the camera's position moves with the better focal length, map units, as far as that is certain. */
    public val shift: Double,
) {
    /** The inliers contradict the stated focal length. */
    public val focalIsOff: Boolean get() = abs(focal) > CERTAIN * focalStd

    /** The inliers contradict the stated principal point. */
    public val centerIsOff: Boolean get() = hypot(centerX, centerY) > CERTAIN * centerStd

    internal companion object {
        const val CERTAIN = 4.0
    }
}

/** What the inliers of a pose say of the camera: whether its focal length or principal point is off, and by how much. */
internal object Intrinsics {
    private const val STEPS = 5
    private const val LARGEST_STEP = 0.25
    private const val LEAST = 12

    /** What the inliers say, or null where they do not say. [matches] are those that the pose was refined on. */
    fun check(
        refined: RefinedPose, matches: Match2D3D, camera: Camera, memory: Memory = Memory(),
    ): IntrinsicsCheck? {
        val own = matches.take(refined.inliers, memory.part("intrinsics: inliers"))
        if (own.size < LEAST) return null
        val first = equations(refined.pose, own, camera, refined.noise, memory)
        val solved = solved(first, 7, refined.noise, memory) ?: return null
        val withCenter = solved(first, 9, refined.noise, memory) // before other equations take their place
        val focalStd = sqrt(max(solved.covariance[48], 0.0))
        val (pose, better) = withFocalFound(refined, own, camera, solved, first.units, memory)
        val focal = better.focalX / camera.focalX - 1
        val certain = abs(focal) > IntrinsicsCheck.CERTAIN * focalStd
        val shift = if (certain) distance(pose.center, refined.pose.center) else 0.0
        val (step, covariance) = withCenter
            ?: return IntrinsicsCheck(focal, focalStd, 0.0, 0.0, Double.POSITIVE_INFINITY, shift)
        val centerStd = sqrt(max(max(covariance[70], covariance[80]), 0.0))
        return IntrinsicsCheck(focal, focalStd, step[7], step[8], centerStd, shift)
    }

    /** (6, 6) covariance of a pose whose focal length was found with it. */
    fun focalCovariance(refined: RefinedPose, matches: Match2D3D, camera: Camera): DoubleArray? {
        val own = matches.take(refined.inliers)
        if (own.size < 4) return null
        val memory = Memory()
        val system = equations(refined.pose, own, camera, refined.noise, memory)
        val (_, covariance) = solved(system, 7, refined.noise, memory) ?: return null
        val inflated = Refinement.INFLATION * Refinement.INFLATION
        val found = DoubleArray(36) {
            covariance[7 * (it / 6) + it % 6] * (system.units[it / 6] * system.units[it % 6]) * inflated
        }
        return found.takeIf { all -> all.all { abs(it) <= Double.MAX_VALUE } }
    }

    /** The pose and focal length at which these inliers agree best, to half a standard deviation. */
    private fun withFocalFound(
        refined: RefinedPose, own: Match2D3D, camera: Camera, first: Solved, firstUnits: DoubleArray, memory: Memory,
    ): Pair<Pose, Camera> {
        var pose = refined.pose
        var better = camera
        var solved: Solved? = first
        var units = firstUnits
        for (k in 0 until STEPS) {
            val (step, covariance) = solved ?: break
            pose = Refinement.retract(pose, DoubleArray(6) { step[it] * units[it] })
            better = better.withFocal(exp(step[6].coerceIn(-LARGEST_STEP, LARGEST_STEP)))
            if (step[6] * step[6] < covariance[48] / 4) break
            val system = equations(pose, own, better, refined.noise, memory)
            units = system.units
            solved = solved(system, 7, refined.noise, memory)
        }
        return pose to better
    }

    private class System(val equations: Equations, val units: DoubleArray)

    private data class Solved(val step: DoubleArray, val covariance: DoubleArray)

    private fun equations(pose: Pose, own: Match2D3D, camera: Camera, noise: Double, memory: Memory): System {
        val n = own.size
        val seen = memory.doubles("intrinsics: seen", 3 * n)
        val projected = memory.doubles("intrinsics: projected", 2 * n)
        val residuals = memory.doubles("intrinsics: residuals", 2 * n)
        pose.transform(own.xyz, n, seen)
        camera.project(seen, n, projected)
        for (i in 0 until 2 * n) residuals[i] = projected[i] - own.xy[i]
        val units = Refinement.unitsOf(seen, n, memory)
        val equations = Equations(9, memory)
        equations.withIntrinsics(camera, seen, projected, residuals, n, units, noise)
        return System(equations, units)
    }

    /** The Gauss-Newton step in the first [k] unknowns, and its covariance; null where they leave a direction open. */
    private fun solved(system: System, k: Int, noise: Double, memory: Memory): Solved? {
        val matrix = memory.doubles("solved: matrix", k * k)
        val factor = memory.doubles("solved: factor", k * k)
        for (i in 0 until k * k) matrix[i] = system.equations.matrix[9 * (i / k) + i % k]
        if (!LinearAlgebra.cholesky(matrix, k, factor)) return null
        val step = system.equations.gradient.copyOf(k)
        LinearAlgebra.substitute(factor, k, step, 0)
        for (i in step.indices) step[i] = -step[i]
        val covariance = LinearAlgebra.inverse(factor, k)
        for (i in covariance.indices) covariance[i] *= noise * noise
        return Solved(step, covariance)
    }
}
