package dev.hfnet.edge.rig

import dev.hfnet.edge.Pose

/** What a small motion of a rig is of its cameras. Matrices are (6, 6), row by row. */
internal object Adjoint {
    /** Takes a small motion of the rig, from the left, to that of a camera at [pose] (cam_from_rig). */
    fun of(pose: Pose): DoubleArray {
        val (x, y, z) = pose.translation
        val across = doubleArrayOf(0.0, -z, y, z, 0.0, -x, -y, x, 0.0)
        val out = DoubleArray(36)
        for (i in 0 until 3) {
            for (j in 0 until 3) {
                out[6 * i + j] = pose.r[3 * i + j]
                out[6 * (3 + i) + 3 + j] = pose.r[3 * i + j]
                for (k in 0 until 3) out[6 * (3 + i) + j] += across[3 * i + k] * pose.r[3 * k + j]
            }
        }
        return out
    }

    /** A covariance of motions, [matrix], after these were taken by [change]: A M A^T. */
    fun carried(change: DoubleArray, matrix: DoubleArray): DoubleArray =
        product(product(change, matrix), transposed(change))

    /** Normal equations of a camera's motions, [matrix], as those of the rig's: A^T M A. */
    fun pulledBack(change: DoubleArray, matrix: DoubleArray): DoubleArray =
        product(product(transposed(change), matrix), change)

    /** The same of a gradient: A^T g. */
    fun pulledBackGradient(change: DoubleArray, gradient: DoubleArray) =
        DoubleArray(6) { i -> (0 until 6).sumOf { change[6 * it + i] * gradient[it] } }

    /** With these variances of rotations, and of translations, on the diagonal. */
    fun diagonal(rotation: Double, translation: Double) =
        DoubleArray(36) { if (it % 7 != 0) 0.0 else if (it < 21) rotation else translation }

    private fun transposed(a: DoubleArray) = DoubleArray(36) { a[6 * (it % 6) + it / 6] }

    private fun product(a: DoubleArray, b: DoubleArray) =
        DoubleArray(36) { at -> (0 until 6).sumOf { a[at / 6 * 6 + it] * b[6 * it + at % 6] } }
}
