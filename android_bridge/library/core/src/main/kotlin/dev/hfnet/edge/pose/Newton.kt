package dev.hfnet.edge.pose

import dev.hfnet.edge.Camera
import dev.hfnet.edge.Match2D3D
import dev.hfnet.edge.Memory
import dev.hfnet.edge.Pose
import kotlin.math.abs
import kotlin.math.ln1p
import kotlin.math.max
import kotlin.math.sqrt

/** Minimises the sum of log(1 + (error / scale)^2): Newton's steps where the curvature is positive, else reweighted. */
internal class Newton(private val camera: Camera, private val scale: Double, private val memory: Memory) {
    private val equations = Equations(6, memory)
    private val curved = memory.doubles("newton: curved", 36)
    private val damped = memory.doubles("newton: damped", 36)
    private val factor = memory.doubles("newton: factor", 36)
    private val by = memory.doubles("newton: by", 6)
    private var here = MovingPose(memory.part("newton: here"))
    private var there = MovingPose(memory.part("newton: there"))

    /** The pose at which these matches agree best, from one that is near. */
    fun optimum(start: Pose, matches: Match2D3D): Pose {
        val n = matches.size
        if (n < 3) return start
        here.set(start)
        var seen = memory.doubles("newton: seen", 3 * n)
        var seenThere = memory.doubles("newton: seen there", 3 * n)
        var residuals = memory.doubles("newton: residuals", 2 * n)
        var residualsThere = memory.doubles("newton: residuals there", 2 * n)
        residualsOf(here, matches, seen, residuals)
        val units = Refinement.unitsOf(seen, n, memory)
        var cost = cost(residuals, n)
        var damping = 1e-9
        var moved = true
        for (step in 0 until MAX_STEPS) {
            if (moved) {
                equations.clear()
                curved.fill(0.0)
                equations.curved(camera, seen, residuals, n, units, scale, curved)
            }
            damp(curved, damping, true)
            if (!LinearAlgebra.cholesky(damped, 6, factor)) {
                damp(equations.matrix, damping, false)
                if (!LinearAlgebra.cholesky(damped, 6, factor)) break
            }
            equations.gradient.copyInto(by)
            LinearAlgebra.substitute(factor, 6, by, 0)
            var largest = 0.0
            for (i in 0 until 6) {
                by[i] = -by[i]
                largest = if (by[i].isNaN()) Double.NaN else max(largest, abs(by[i]))
            }
            for (i in 0 until 6) by[i] *= units[i]
            there.retract(here, by)
            residualsOf(there, matches, seenThere, residualsThere)
            val costThere = cost(residualsThere, n)
            val last = largest < SMALL_STEP // is taken whatever rounding makes of its cost
            moved = last || costThere <= cost
            if (moved) {
                here = there.also { there = here }
                seen = seenThere.also { seenThere = seen }
                residuals = residualsThere.also { residualsThere = residuals }
                cost = costThere
            }
            damping = if (moved) max(damping / 10, 1e-9) else max(damping * 10, 1e-3)
            if (last || damping > 1e6) break
        }
        return here.pose()
    }

    private fun damp(matrix: DoubleArray, damping: Double, absolute: Boolean) {
        matrix.copyInto(damped)
        for (i in 0 until 6) damped[7 * i] += damping * if (absolute) abs(matrix[7 * i]) else matrix[7 * i]
    }

    private fun residualsOf(pose: MovingPose, matches: Match2D3D, seen: DoubleArray, out: DoubleArray) {
        pose.transform(matches.xyz, matches.size, seen)
        camera.project(seen, matches.size, out)
        for (i in 0 until 2 * matches.size) out[i] -= matches.xy[i]
    }

    /** Cauchy's; infinite where a landmark is behind the camera. */
    private fun cost(residuals: DoubleArray, n: Int): Double {
        var sum = 0.0
        for (i in 0 until 2 * n step 2) {
            val squared = (residuals[i] * residuals[i] + residuals[i + 1] * residuals[i + 1]) / (scale * scale)
            if (squared.isNaN()) return Double.POSITIVE_INFINITY
            sum += ln1p(squared)
        }
        return sum
    }

    private companion object {
        const val MAX_STEPS = 30
        const val SMALL_STEP = 1e-8
    }
}

/** A pose that moves in small steps. */
internal class MovingPose(memory: Memory = Memory()) {
    private val q = memory.doubles("q", 4)
    private val t = memory.doubles("t", 3)
    private val r = memory.doubles("r", 9)
    private val turn = memory.doubles("turn", 9)

    fun set(pose: Pose) {
        pose.copyInto(q, t)
        pose.r.copyInto(r)
    }

    fun pose(): Pose = Pose(q, t)

    /** Becomes `exp(delta) * from` to second order, a rotation for any delta: the quaternion (1, delta / 2), normalised. */
    fun retract(from: MovingPose, delta: DoubleArray) {
        val a = delta[0] / 2
        val b = delta[1] / 2
        val c = delta[2] / 2
        val length = sqrt(1 + a * a + b * b + c * c)
        q[0] = 1 / length
        q[1] = a / length
        q[2] = b / length
        q[3] = c / length
        Pose.rotation(q, turn)
        delta.copyInto(t, 0, 3, 6)
        Pose.transform(turn, t, from.t, 1, r)
        r.copyInto(t, 0, 0, 3)
        val w = from.q[0]
        val x = from.q[1]
        val y = from.q[2]
        val z = from.q[3]
        q[0] = w - a * x - b * y - c * z
        q[1] = x + a * w + b * z - c * y
        q[2] = y + b * w + c * x - a * z
        q[3] = z + c * w + a * y - b * x
        val norm = sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
        for (i in 0 until 4) q[i] /= norm
        Pose.rotation(q, r)
    }

    fun transform(xyz: DoubleArray, count: Int, out: DoubleArray): Unit = Pose.transform(r, t, xyz, count, out)
}
