package dev.hfnet.edge.pose

import kotlin.math.abs
import kotlin.math.sqrt

/** Small symmetric systems, in a fixed order of operations. Matrices are row by row. */
internal object LinearAlgebra {
    /** The lower triangle L with L L^T = [a], (k, k); null where it is not positive to 1 part in 10^12. */
    fun cholesky(a: DoubleArray, k: Int): DoubleArray? = DoubleArray(k * k).takeIf { cholesky(a, k, it) }

    /** The same into the lower triangle of [factor]; whether there is one. */
    fun cholesky(a: DoubleArray, k: Int, factor: DoubleArray): Boolean {
        for (i in 0 until k) {
            for (j in 0..i) {
                var value = a[i * k + j]
                for (m in 0 until j) value -= factor[i * k + m] * factor[j * k + m]
                if (i != j) {
                    factor[i * k + j] = value / factor[j * k + j]
                } else if (value > 1e-12 * a[i * k + i] && a[i * k + i] > 0) {
                    factor[i * k + i] = sqrt(value)
                } else {
                    return false
                }
            }
        }
        return true
    }

    /** Solves L L^T x = [right]. */
    fun substitute(factor: DoubleArray, right: DoubleArray): DoubleArray =
        right.copyOf().also { substitute(factor, right.size, it, 0) }

    /** Solves L L^T x = b of [k] numbers, which are b before and x after, from [at] on. */
    fun substitute(factor: DoubleArray, k: Int, x: DoubleArray, at: Int) {
        for (i in 0 until k) {
            for (m in 0 until i) x[at + i] -= factor[i * k + m] * x[at + m]
            x[at + i] /= factor[i * k + i]
        }
        for (i in k - 1 downTo 0) {
            for (m in i + 1 until k) x[at + i] -= factor[m * k + i] * x[at + m]
            x[at + i] /= factor[i * k + i]
        }
    }

    /** The inverse of L L^T. */
    fun inverse(factor: DoubleArray, k: Int): DoubleArray {
        val rows = DoubleArray(k * k) { if (it % (k + 1) == 0) 1.0 else 0.0 }
        for (row in 0 until k) substitute(factor, k, rows, row * k)
        return DoubleArray(k * k) { (rows[it] + rows[it % k * k + it / k]) / 2 }
    }

    /** The inverse of a symmetric (k, k) matrix; of directions in which it is nothing, nothing. */
    fun pseudoInverse(symmetric: DoubleArray, k: Int): DoubleArray {
        val (values, vectors) = eigen(symmetric, k)
        val least = NOTHING * values.maxOf { abs(it) }
        val out = DoubleArray(k * k)
        for (m in 0 until k) {
            if (!(abs(values[m]) > least)) continue
            for (at in out.indices) out[at] += vectors[k * m + at / k] * vectors[k * m + at % k] / values[m]
        }
        return out
    }

    /**
     * Eigenvalues of a symmetric (k, k) matrix, the largest first, and their unit vectors, row by row: Jacobi's rotations.
     */
    fun eigen(symmetric: DoubleArray, k: Int): Pair<DoubleArray, DoubleArray> {
        val a = symmetric.copyOf()
        val v = DoubleArray(k * k) { if (it % (k + 1) == 0) 1.0 else 0.0 } // rows are vectors
        for (sweep in 0 until SWEEPS) {
            if (isDiagonal(a, k)) break
            for (p in 0 until k - 1) {
                for (q in p + 1 until k) {
                    if (a[k * p + q] == 0.0) continue
                    val theta = (a[(k + 1) * q] - a[(k + 1) * p]) / (2 * a[k * p + q])
                    val t = (if (theta < 0) -1 else 1) / (abs(theta) + sqrt(theta * theta + 1))
                    val c = 1 / sqrt(t * t + 1)
                    val s = t * c
                    for (i in 0 until k) { // columns
                        val x = a[k * i + p]
                        val y = a[k * i + q]
                        a[k * i + p] = c * x - s * y
                        a[k * i + q] = s * x + c * y
                    }
                    for (i in 0 until k) { // rows
                        val x = a[k * p + i]
                        val y = a[k * q + i]
                        a[k * p + i] = c * x - s * y
                        a[k * q + i] = s * x + c * y
                        val u = v[k * p + i]
                        val w = v[k * q + i]
                        v[k * p + i] = c * u - s * w
                        v[k * q + i] = s * u + c * w
                    }
                }
            }
        }
        val order = (0 until k).sortedByDescending { a[(k + 1) * it] }
        return DoubleArray(k) { a[(k + 1) * order[it]] } to DoubleArray(k * k) { v[k * order[it / k] + it % k] }
    }

    private fun isDiagonal(a: DoubleArray, k: Int): Boolean {
        for (p in 0 until k - 1) for (q in p + 1 until k) if (a[k * p + q] != 0.0) return false
        return true
    }

    private const val NOTHING = 1e-15 // of the largest eigenvalue
    private const val SWEEPS = 30
}
