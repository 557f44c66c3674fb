package dev.hfnet.edge.image

import kotlin.math.floor

/**
 * Grey images made larger: linear interpolation in whole numbers, with weights of 1/256 each way. It gives the bits of
 * OpenCV's `INTER_LINEAR_EXACT`.
 */
public object Enlargement {
    private const val ONE = 256 // a weight's unit
    private const val SHIFT = 16 // both ways

    /** Enlarges (h, w) grey levels to ([toHeight], [toWidth]), at least as large. [stride]: bytes from row to row. */
    @JvmStatic
    public fun enlarge(grey: ByteArray, h: Int, w: Int, stride: Int, toHeight: Int, toWidth: Int): ByteArray {
        require(h in 1..toHeight && w in 1..toWidth) { "${h}x$w is not enlarged to ${toHeight}x$toWidth" }
        val rows = Taps(h, toHeight)
        val columns = Taps(w, toWidth)
        val out = ByteArray(toHeight * toWidth)
        for (y in 0 until toHeight) {
            val above = rows.first[y] * stride
            val below = rows.second[y] * stride
            val down = rows.weight[y]
            for (x in 0 until toWidth) {
                val left = columns.first[x]
                val right = columns.second[x]
                val across = columns.weight[x]
                val top = (ONE - across) * grey.level(above + left) + across * grey.level(above + right)
                val bottom = (ONE - across) * grey.level(below + left) + across * grey.level(below + right)
                val sum = (ONE - down) * top + down * bottom
                out[y * toWidth + x] = ((sum + (1 shl (SHIFT - 1))) shr SHIFT).toByte()
            }
        }
        return out
    }

    private fun ByteArray.level(at: Int) = get(at).toInt() and 0xff

    /** Which two pixels of an axis each enlarged one lies between, and the second one's weight. */
    private class Taps(length: Int, enlarged: Int) {
        val first = IntArray(enlarged)
        val second = IntArray(enlarged)
        val weight = IntArray(enlarged)

        init {
            val scale = 1.0 / (enlarged.toDouble() / length) // OpenCV divides twice
            for (i in 0 until enlarged) {
                val at = scale * (i + 0.5) - 0.5
                val before = floor(at).toInt()
                first[i] = before.coerceIn(0, length - 1)
                second[i] = (before + 1).coerceIn(0, length - 1)
                weight[i] = Math.rint((at - before) * ONE).toInt()
            }
        }
    }
}
