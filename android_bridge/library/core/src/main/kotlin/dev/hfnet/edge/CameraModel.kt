package dev.hfnet.edge

import kotlin.math.abs
import kotlin.math.atan
import kotlin.math.atan2
import kotlin.math.cos
import kotlin.math.min
import kotlin.math.sin
import kotlin.math.sqrt
import kotlin.math.tan

/**
 * COLMAP's camera models: how each bends a ray's coordinates before focal length and centre make pixels of them.
 *
 * Perspective models bend (x / z, y / z), fisheyes the angle from the axis, along the direction from it. All see what lies
 * before the camera, at less than 90 degrees from its axis.
 */
internal enum class CameraModel(val names: List<String>, val fisheye: Boolean, private val bend: Bend) {
    SIMPLE_PINHOLE(ONE, false, { _, _, _, _ -> }),
    PINHOLE(TWO, false, { _, _, _, _ -> }),
    SIMPLE_RADIAL(ONE + "k", false, { x, y, k, out -> radial(x, y, k[0], 0.0, out) }),
    RADIAL(ONE + listOf("k1", "k2"), false, { x, y, k, out -> radial(x, y, k[0], k[1], out) }),
    OPENCV(TWO + listOf("k1", "k2", "p1", "p2"), false, { x, y, k, out ->
        val r2 = x * x + y * y
        val radial = 1 + r2 * (k[0] + r2 * k[1])
        out[0] = x * radial + 2 * k[2] * x * y + k[3] * (r2 + 2 * x * x)
        out[1] = y * radial + 2 * k[3] * x * y + k[2] * (r2 + 2 * y * y)
    }),
    FULL_OPENCV(TWO + listOf("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"), false, { x, y, k, out ->
        val r2 = x * x + y * y
        val factor = (1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))) / (1 + r2 * (k[5] + r2 * (k[6] + r2 * k[7])))
        tangential(x, y, k[2], k[3], out)
        out[0] = x * factor + out[0]
        out[1] = y * factor + out[1]
    }),
    FOV(TWO + "omega", false, { x, y, k, out ->
        val r = sqrt(x * x + y * y)
        if (abs(k[0]) >= 1e-6) {
            val slope = tan(k[0] / 2)
            val factor = if (r > 1e-9) atan(2 * r * slope) / (r * k[0]) else 2 * slope / k[0]
            out[0] = x * factor
            out[1] = y * factor
        }
    }),
    SIMPLE_DIVISION(ONE + "k", false, { x, y, k, out -> division(x, y, k[0], out) }),
    DIVISION(TWO + "k", false, { x, y, k, out -> division(x, y, k[0], out) }),
    EUCM(TWO + listOf("alpha", "beta"), false, { x, y, k, out ->
        val depth = k[0] * sqrt(k[1] * (x * x + y * y) + 1) + 1 - k[0]
        out[0] = x / depth
        out[1] = y / depth
    }),
    SIMPLE_FISHEYE(ONE, true, { _, _, _, _ -> }),
    FISHEYE(TWO, true, { _, _, _, _ -> }),
    SIMPLE_RADIAL_FISHEYE(ONE + "k", true, { x, y, k, out -> radial(x, y, k[0], 0.0, out) }),
    RADIAL_FISHEYE(ONE + listOf("k1", "k2"), true, { x, y, k, out -> radial(x, y, k[0], k[1], out) }),
    OPENCV_FISHEYE(TWO + listOf("k1", "k2", "k3", "k4"), true, { x, y, k, out -> kannalaBrandt(x, y, k, 4, out) }),
    THIN_PRISM_FISHEYE(TWO + listOf("k1", "k2", "p1", "p2", "k3", "k4", "sx1", "sy1"), true, { x, y, k, out ->
        val r2 = x * x + y * y
        tangential(x, y, k[2], k[3], out)
        val xt = out[0]
        val yt = out[1]
        kannalaBrandt(x, y, doubleArrayOf(k[0], k[1], k[4], k[5]), 4, out)
        out[0] = out[0] + xt + k[6] * r2
        out[1] = out[1] + yt + k[7] * r2
    }),
    RAD_TAN_THIN_PRISM_FISHEYE(
        TWO + listOf("k0", "k1", "k2", "k3", "k4", "k5", "p0", "p1", "s0", "s1", "s2", "s3"), true, { x, y, k, out ->
            kannalaBrandt(x, y, k, 6, out)
            val bx = out[0]
            val by = out[1]
            val r2 = bx * bx + by * by
            tangential(bx, by, k[7], k[6], out)
            out[0] = bx + out[0] + r2 * (k[8] + r2 * k[9])
            out[1] = by + out[1] + r2 * (k[10] + r2 * k[11])
        },
    );

    /** Number of focal lengths. */
    val lengths = if (names[0] == "fx") 2 else 1

    /** Whether it takes additions, multiplications and divisions alone, and solvers know it. */
    val isPlain get() = ordinal <= 4

    /** Bends the coordinates (x, y) of a ray into [out]. [params] are those of the bending. */
    fun bent(x: Double, y: Double, params: DoubleArray, out: DoubleArray) {
        out[0] = x
        out[1] = y
        bend.bend(x, y, params, out)
    }

    /** The coordinates of a ray in the camera's frame that are bent, into [out]; NaN behind the camera. */
    fun chart(x: Double, y: Double, z: Double, out: DoubleArray) {
        if (!(z > 0)) {
            out[0] = Double.NaN
            out[1] = Double.NaN
        } else if (!fisheye) {
            out[0] = x / z
            out[1] = y / z
        } else {
            val radius = sqrt(x * x + y * y)
            val factor = if (radius > 0) atan2(radius, z) / radius else 1 / z
            out[0] = x * factor
            out[1] = y * factor
        }
    }

    /** The ray of unit depth, or of unit length for a fisheye, into [out]; NaN beyond 90 degrees. */
    fun ray(x: Double, y: Double, out: DoubleArray, at: Int) {
        if (!fisheye) {
            out[at] = x
            out[at + 1] = y
            out[at + 2] = 1.0
            return
        }
        val angle = sqrt(x * x + y * y)
        val seen = angle < Math.PI / 2
        val share = if (angle == 0.0) 1.0 else sin(angle) / angle
        out[at] = if (seen) x * share else Double.NaN
        out[at + 1] = if (seen) y * share else Double.NaN
        out[at + 2] = if (seen) cos(angle) else Double.NaN
    }

    /** The inverse of [bent], by Newton's method from the coordinates themselves, into [out]; NaN where none is found. */
    fun straightened(x: Double, y: Double, params: DoubleArray, out: DoubleArray) {
        var u = x
        var v = y
        for (round in 0 until ROUNDS) {
            bent(u, v, params, out)
            val ox = x - out[0]
            val oy = y - out[1]
            bent(u + STEP, v, params, out)
            val moreX = out[0]
            val moreY = out[1]
            bent(u - STEP, v, params, out)
            val a = (moreX - out[0]) / (2 * STEP)
            val c = (moreY - out[1]) / (2 * STEP)
            bent(u, v + STEP, params, out)
            val upX = out[0]
            val upY = out[1]
            bent(u, v - STEP, params, out)
            val b = (upX - out[0]) / (2 * STEP)
            val d = (upY - out[1]) / (2 * STEP)
            val determinant = a * d - b * c
            val du = (d * ox - b * oy) / determinant
            val dv = (a * oy - c * ox) / determinant
            val length = sqrt(du * du + dv * dv)
            val share = if (length > 0) min(1.0, 0.5 / length) else 1.0
            u += du * share
            v += dv * share
            if (!(length >= CLOSE)) break
        }
        bent(u, v, params, out)
        val found = (x - out[0]) * (x - out[0]) + (y - out[1]) * (y - out[1]) < 1e-16
        out[0] = if (found) u else Double.NaN
        out[1] = if (found) v else Double.NaN
    }

    private companion object {
        const val STEP = 1e-6
        const val ROUNDS = 50
        const val CLOSE = 1e-12
    }
}

/** Coordinates x, y and the model's parameters; the result goes to the last, which holds x and y. */
internal fun interface Bend {
    fun bend(x: Double, y: Double, params: DoubleArray, out: DoubleArray)
}

private val ONE = listOf("f", "cx", "cy")
private val TWO = listOf("fx", "fy", "cx", "cy")

private fun radial(x: Double, y: Double, k1: Double, k2: Double, out: DoubleArray) {
    val r2 = x * x + y * y
    val factor = 1 + r2 * (k1 + r2 * k2)
    out[0] = x * factor
    out[1] = y * factor
}

private fun tangential(x: Double, y: Double, p1: Double, p2: Double, out: DoubleArray) {
    val r2 = x * x + y * y
    out[0] = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    out[1] = 2 * p2 * x * y + p1 * (r2 + 2 * y * y)
}

private fun division(x: Double, y: Double, k: Double, out: DoubleArray) {
    val factor = 2 / (1 + sqrt(1 - 4 * k * (x * x + y * y)))
    out[0] = x * factor
    out[1] = y * factor
}

private fun kannalaBrandt(x: Double, y: Double, k: DoubleArray, rows: Int, out: DoubleArray) {
    val r2 = x * x + y * y
    var factor = 1.0
    var power = 1.0
    for (row in 0 until rows) {
        power *= r2
        factor += k[row] * power
    }
    out[0] = x * factor
    out[1] = y * factor
}
