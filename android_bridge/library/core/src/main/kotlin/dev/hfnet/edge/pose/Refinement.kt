package dev.hfnet.edge.pose

import dev.hfnet.edge.Camera
import dev.hfnet.edge.Match2D3D
import dev.hfnet.edge.Memory
import dev.hfnet.edge.Pose
import dev.hfnet.edge.count
import kotlin.math.abs
import kotlin.math.ln
import kotlin.math.max
import kotlin.math.sqrt

/**
 * The optimum in N matches, and how certain it is.
 *
 * The covariance is in the tangent space: `cam_from_world` moves by `exp(delta)` from the left, where delta is rotation in
 * radians, then translation in the map's unit, both in the camera's frame.
 */
public class RefinedPose internal constructor(
    /** cam_from_world. */
    public val pose: Pose,
    /** N, those that support the pose. */
    public val inliers: BooleanArray,
    /** N reprojection errors, pixels; infinite behind the camera. */
    public val errors: DoubleArray,
    /** Standard deviation of a keypoint's coordinate, pixels, from the inliers. */
    public val noise: Double,
    /** (6, 6) row by row; null where the inliers leave a direction open, or where it is not asked for. */
    public val covariance: DoubleArray? = null,
    /** N. */
    internal val size: Int = errors.size,
) {
    /** Root of the expected squared distance of the camera's centre from the true one, map units; infinite: unknown. */
    public val positionStd: Double get() = positionStd(covariance)

    /** Root of the expected squared angle from the true rotation, degrees; infinite: unknown. */
    public val rotationStd: Double get() = rotationStd(covariance)

    internal val inlierCount get() = inliers.count(size)

    /** Puts the inliers' errors into [out]: how many they are. */
    internal fun inlierErrors(out: DoubleArray): Int {
        var n = 0
        for (i in 0 until size) if (inliers[i]) out[n++] = errors[i]
        return n
    }

    internal fun with(
        pose: Pose = this.pose,
        inliers: BooleanArray = this.inliers,
        errors: DoubleArray = this.errors,
        covariance: DoubleArray? = this.covariance,
    ) = RefinedPose(pose, inliers, errors, noise, covariance, size)
}

internal fun positionStd(covariance: DoubleArray?): Double =
    if (covariance == null) Double.POSITIVE_INFINITY else sqrt(covariance[21] + covariance[28] + covariance[35])

internal fun rotationStd(covariance: DoubleArray?): Double =
    if (covariance == null) Double.POSITIVE_INFINITY else Math.toDegrees(sqrt(covariance[0] + covariance[7] + covariance[14]))

/**
 * The last step of every solver and device: Newton on the inliers, with a Cauchy loss at the keypoint noise. Additions,
 * multiplications, divisions and square roots in a fixed order, from the first match to the last.
 */
public object Refinement {
    internal const val INFLATION = 1.4
    internal const val PRECISE = 1.0 / 32
    internal const val COARSE = 1.0 / 4
    internal const val NOISE_FLOOR = 1.0 / 80
    private const val MAX_ROUNDS = 10
    private const val ORDINARY = 10
    internal val MEDIAN_OF_RAYLEIGH = sqrt(2 * ln(2.0))

    /**
     * The pose at which the inliers' reprojection errors are least, and these are the inliers of.
     *
     * @param maxError inlier threshold, pixels. @param rough with a wider loss, and once.
     */
    @JvmStatic
    @JvmOverloads
    public fun refine(
        pose: Pose, matches: Match2D3D, camera: Camera, maxError: Double, rough: Boolean = false,
    ): RefinedPose = refine(pose, matches, camera, maxError, rough, Memory())

    /** As the other one; inliers and errors live in [memory]. */
    internal fun refine(
        pose: Pose, matches: Match2D3D, camera: Camera, maxError: Double, rough: Boolean, memory: Memory,
    ): RefinedPose {
        val n = matches.size
        var best = pose
        var errors = Support.reprojectionErrors(pose, matches, camera, memory)
        var inliers = memory.booleans("refined: inliers", n)
        var before = memory.booleans("refined: inliers before", n)
        for (i in 0 until n) inliers[i] = errors[i] < maxError
        val newton = Newton(camera, (if (rough) COARSE else PRECISE) * maxError, memory)
        for (round in 0 until if (rough) 1 else MAX_ROUNDS) {
            best = newton.optimum(best, matches.take(inliers, memory.part("refined: on")))
            inliers = before.also { before = inliers }
            errors = Support.reprojectionErrors(best, matches, camera, memory)
            var same = true
            for (i in 0 until n) {
                inliers[i] = errors[i] < maxError
                if (inliers[i] != before[i]) same = false
            }
            if (same) break
        }
        val near = memory.doubles("refined: near", n)
        var count = 0
        for (i in 0 until n) if (inliers[i]) near[count++] = errors[i]
        val noise = max(if (count > 0) medianOf(near, count) / MEDIAN_OF_RAYLEIGH else 0.0, NOISE_FLOOR * maxError)
        return RefinedPose(best, inliers, errors, noise, size = n)
    }

    /** As [refine], of places of any size. */
    internal fun refineAgain(
        pose: Pose, matches: Match2D3D, camera: Camera, maxError: Double, rough: Boolean = false,
        memory: Memory = Memory(),
    ): RefinedPose {
        val scale = scaleOf(matches, memory)
        val refined = refine(pose.scaled(scale), matches.scaled(scale, memory), camera, maxError, rough, memory)
        return refined.with(pose = refined.pose.scaled(1 / scale))
    }

    /** The pose with its covariance in the matches that it was refined on. */
    @JvmStatic
    public fun withCovariance(refined: RefinedPose, matches: Match2D3D, camera: Camera): RefinedPose =
        withCovariance(refined, matches, camera, Memory())

    /** As the other one, with work in [memory]. */
    internal fun withCovariance(
        refined: RefinedPose, matches: Match2D3D, camera: Camera, memory: Memory,
    ): RefinedPose {
        val own = matches.take(refined.inliers, memory.part("covariance: inliers"))
        val scale = scaleOf(own, memory)
        val scaled = own.scaled(scale, memory)
        val found = covariance(refined.pose.scaled(scale), scaled, camera, refined.noise, memory) ?: return refined
        val units = DoubleArray(6) { if (it < 3) 1.0 else 1 / scale }
        return refined.with(covariance = DoubleArray(36) { found[it] * (units[it / 6] * units[it % 6]) })
    }

    /** A power of two by which landmarks become as large as rooms and towns are: solvers lose precision far from there. */
    internal fun scaleOf(matches: Match2D3D, memory: Memory): Double {
        val n = matches.size
        if (n == 0) return 1.0
        val xyz = matches.xyz
        val values = memory.doubles("scale: values", n)
        val middle = DoubleArray(3)
        for (axis in 0 until 3) {
            for (i in 0 until n) values[i] = xyz[3 * i + axis]
            middle[axis] = medianOf(values, n)
        }
        for (i in 0 until n) {
            values[i] = 0.0
            for (axis in 0 until 3) values[i] = max(values[i], abs(xyz[3 * i + axis] - middle[axis]))
        }
        var spread = medianOf(values, n)
        if (spread == 0.0) spread = values[n - 1]
        if (spread == 0.0 || !(spread <= Double.MAX_VALUE)) return 1.0
        val bits = Math.getExponent(spread) + 1
        return if (abs(bits) <= ORDINARY) 1.0 else Math.scalb(1.0, -bits)
    }

    /** By which the tangent space is measured, so that small and large places are alike: radians, and depths. */
    internal fun unitsOf(seen: DoubleArray, n: Int = seen.size / 3, memory: Memory = Memory()): DoubleArray {
        val depths = memory.doubles("units: depths", n)
        for (i in 0 until n) depths[i] = abs(seen[3 * i + 2])
        var depth = medianOf(depths, n)
        if (depth == 0.0) depth = 1.0
        return DoubleArray(6) { if (it < 3) 1.0 else depth }
    }

    /** The inverse of the last normal matrix, times noise^2: what a match far from its landmark weighs, Cauchy says. */
    private fun covariance(
        pose: Pose, matches: Match2D3D, camera: Camera, noise: Double, memory: Memory,
    ): DoubleArray? {
        val n = matches.size
        if (n < 3) return null
        val seen = memory.doubles("covariance: seen", 3 * n)
        val residuals = memory.doubles("covariance: residuals", 2 * n)
        pose.transform(matches.xyz, n, seen)
        camera.project(seen, n, residuals)
        for (i in 0 until 2 * n) residuals[i] -= matches.xy[i]
        val units = unitsOf(seen, n, memory)
        val equations = Equations(6, memory)
        equations.reweighted(camera, seen, residuals, units, noise, n)
        val factor = LinearAlgebra.cholesky(equations.matrix, 6) ?: return null
        val inverse = LinearAlgebra.inverse(factor, 6)
        val inflated = (INFLATION * noise) * (INFLATION * noise)
        val out = DoubleArray(36) { inverse[it] * (units[it / 6] * units[it % 6]) * inflated }
        return out.takeIf { all -> all.all { abs(it) <= Double.MAX_VALUE } }
    }

    /** `exp(delta) * pose` to second order. */
    internal fun retract(pose: Pose, delta: DoubleArray): Pose {
        val from = MovingPose().also { it.set(pose) }
        return MovingPose().also { it.retract(from, delta) }.pose()
    }
}

/** Normal equations of [k] unknowns, summed from the first match to the last: J^T W J and J^T W r. */
internal class Equations(private val k: Int, memory: Memory = Memory()) {
    val matrix = memory.doubles(if (k == 6) "equations: matrix of 6" else "equations: matrix", k * k)
    val gradient = memory.doubles(if (k == 6) "equations: gradient of 6" else "equations: gradient", k)
    private val byPoint = memory.doubles("equations: by point", 6)
    private val row = memory.doubles("equations: row", 2 * k)
    private val along = memory.doubles("equations: along", 6)
    private val work = memory.doubles("equations: work", 2)

    init {
        clear()
    }

    fun clear() {
        matrix.fill(0.0)
        gradient.fill(0.0)
    }

    /** The derivatives of a pixel by the tangent space, times [units], (2, 6) in rows of k. */
    private fun derivatives(camera: Camera, x: Double, y: Double, z: Double, units: DoubleArray) {
        camera.jacobian(x, y, z, byPoint, work)
        for (i in 0 until 2) {
            val a = byPoint[3 * i]
            val b = byPoint[3 * i + 1]
            val c = byPoint[3 * i + 2]
            val at = k * i
            row[at] = a * 0.0 + b * -z + c * y
            row[at + 1] = a * z + b * 0.0 + c * -x
            row[at + 2] = a * -y + b * x + c * 0.0
            row[at + 3] = a
            row[at + 4] = b
            row[at + 5] = c
            for (j in 0 until 6) row[at + j] *= units[j]
        }
    }

    /** Adds what matches say by reweighted least squares, weights by [noise]. */
    fun reweighted(
        camera: Camera, seen: DoubleArray, residuals: DoubleArray, units: DoubleArray, noise: Double,
        count: Int = residuals.size / 2,
    ) = reweighted(camera, seen, residuals, units, noise, count) {}

    /** As the other one; [more] puts a match's derivatives by further unknowns into [row]. */
    private inline fun reweighted(
        camera: Camera, seen: DoubleArray, residuals: DoubleArray, units: DoubleArray, noise: Double, count: Int,
        more: (Int) -> Unit,
    ) {
        for (n in 0 until count) {
            val rx = residuals[2 * n]
            val ry = residuals[2 * n + 1]
            val weight = 1 / (1 + (rx * rx + ry * ry) / (noise * noise))
            derivatives(camera, seen[3 * n], seen[3 * n + 1], seen[3 * n + 2], units)
            more(n)
            add(0, rx, weight)
            add(1, ry, weight)
        }
        mirror(matrix)
    }

    /** As [reweighted], and into [newton] with the loss's own curvature. */
    fun curved(
        camera: Camera, seen: DoubleArray, residuals: DoubleArray, count: Int, units: DoubleArray, scale: Double,
        newton: DoubleArray,
    ) {
        for (n in 0 until count) {
            val rx = residuals[2 * n]
            val ry = residuals[2 * n + 1]
            val weight = 1 / (1 + (rx * rx + ry * ry) / (scale * scale))
            derivatives(camera, seen[3 * n], seen[3 * n + 1], seen[3 * n + 2], units)
            for (j in 0 until 6) {
                along[j] = row[j] * rx + row[6 + j] * ry
                gradient[j] += along[j] * weight
            }
            val bend = -2 * ((weight / scale) * (weight / scale))
            for (i in 0 until 6) {
                for (j in i until 6) {
                    val first = row[i] * weight * row[j]
                    val second = row[6 + i] * weight * row[6 + j]
                    newton[6 * i + j] = newton[6 * i + j] + first + second + along[i] * bend * along[j]
                    matrix[6 * i + j] = matrix[6 * i + j] + first + second
                }
            }
        }
        mirror(matrix)
        mirror(newton)
    }

    /**
     * As [reweighted], with three unknowns more: the logarithm of the focal length, and the principal point.
     *
     * @param projected the pixels at which the points fall.
     */
    fun withIntrinsics(
        camera: Camera, seen: DoubleArray, projected: DoubleArray, residuals: DoubleArray, count: Int, units: DoubleArray,
        noise: Double,
    ) {
        reweighted(camera, seen, residuals, units, noise, count) { n ->
            row[6] = projected[2 * n] - camera.centerX
            row[7] = 1.0
            row[8] = 0.0
            row[15] = projected[2 * n + 1] - camera.centerY
            row[16] = 0.0
            row[17] = 1.0
        }
    }

    private fun add(i: Int, residual: Double, weight: Double) {
        val at = k * i
        for (a in 0 until k) {
            val weighted = row[at + a] * weight
            gradient[a] += weighted * residual
            for (b in a until k) matrix[k * a + b] += weighted * row[at + b]
        }
    }

    private fun mirror(of: DoubleArray) {
        for (a in 0 until k) for (b in 0 until a) of[k * a + b] = of[k * b + a]
    }
}
