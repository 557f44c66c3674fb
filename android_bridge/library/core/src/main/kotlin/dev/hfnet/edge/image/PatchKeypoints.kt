package dev.hfnet.edge.image

import kotlin.math.abs
import kotlin.math.cos
import kotlin.math.sin

/** Keypoints that patches are cut around; N of them. */
public class PatchKeypoints(
    /** x and y one after the other, pixels, pixel centres at 0.5. */
    public val xy: FloatArray,
    /** Standard deviation of the Gaussian that each was found with, pixels. */
    public val scale: FloatArray,
    /** Radians, from the image's x axis towards its y axis. */
    public val angle: FloatArray,
    /** The detector's response. */
    public val scores: FloatArray,
) {
    /** N. */
    public val size: Int get() = scale.size

    init {
        require(xy.size == 2 * size && angle.size == size && scores.size == size) { "arrays are of unequal lengths" }
    }

    /** Whether the whole patch of one lies in an image of [height] rows and [width] columns, and there is one. */
    public fun isInside(row: Int, height: Int, width: Int): Boolean {
        val turned = abs(cos(angle[row].toDouble()).toFloat()) + abs(sin(angle[row].toDouble()).toFloat())
        val reach = scale[row] * turned * (Patches.PATCH_SCALE / 2).toFloat()
        val x = xy[2 * row]
        val y = xy[2 * row + 1]
        return x >= reach && y >= reach && x <= width - reach && y <= height - reach && scale[row] > 0
    }

    /** Those of some rows, in their order. */
    public fun rows(rows: IntArray): PatchKeypoints = PatchKeypoints(
        FloatArray(2 * rows.size) { xy[2 * rows[it / 2] + it % 2] }, FloatArray(rows.size) { scale[rows[it]] },
        FloatArray(rows.size) { angle[rows[it]] }, FloatArray(rows.size) { scores[rows[it]] },
    )
}
