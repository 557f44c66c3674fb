package dev.hfnet.edge.image

import dev.hfnet.edge.ImageException
import dev.hfnet.edge.InputException
import kotlin.math.cos
import kotlin.math.max
import kotlin.math.min
import kotlin.math.sin
import kotlin.math.sqrt

/**
 * Upright patches: squares of [PATCH_SCALE] times a keypoint's scale, turned by its orientation, sampled to 32x32, with
 * their light taken out. Positions are rounded to 1/65536 pixel; from there on cutting is arithmetic in whole numbers.
 */
public object Patches {
    /** Pixels of a patch, each way. */
    public const val SIDE: Int = 32

    /** The side of the square, in units of the keypoint's scale. */
    public const val PATCH_SCALE: Double = 13.0
    private const val MAX_SIDE = 16384 // pixels of an image: positions in the atlas fit 32 bits
    private const val MEAN = 128f // of a patch's grey levels
    private const val DEVIATION = 42.0
    private const val ONE = 16 // fractional bits of a position
    private const val STEP = 5 // fractional bits of an interpolation weight
    private const val PIXELS = SIDE * SIDE

    /**
     * Cuts the patches of all keypoints. A patch is sampled bilinearly from the level of an image pyramid at which its
     * samples are 0.7 to 1.4 pixels apart, or from the image itself where they are closer.
     *
     * @param image grey levels, [height] rows of [width] columns.
     * @return (N, 32, 32), mean 128 and standard deviation 42; a patch without any contrast is 128 all over.
     * @throws ImageException the image is empty or too large, or the bytes are others. @throws InputException a patch
     *   leaves the image, or a keypoint is not finite.
     */
    @JvmStatic
    public fun cut(image: ByteArray, height: Int, width: Int, keypoints: PatchKeypoints): ByteArray {
        if (min(height, width) < 1 || max(height, width) > MAX_SIDE || image.size != height * width) {
            throw ImageException(
                "patches are not cut from ${image.size} bytes of ${width}x$height",
                "give grey levels, of $MAX_SIDE pixels at most each way",
            )
        }
        val n = keypoints.size
        val outside = (0 until n).count { !keypoints.isInside(it, height, width) }
        if (outside > 0) throw InputException("$outside of $n patches leave the image", "keep those that are inside it")
        val steps = DoubleArray(n) { keypoints.scale[it] * (PATCH_SCALE / SIDE) }
        val highest = 31 - Integer.numberOfLeadingZeros(min(height, width))
        val levels = IntArray(n) { levelOf(steps[it], highest) }
        val atlas = Atlas(image, height, width, 1 + (levels.maxOrNull() ?: 0))
        val out = ByteArray(n * PIXELS)
        val samples = IntArray(PIXELS)
        for (i in 0 until n) {
            val level = levels[i]
            val shrink = 1.0 / (1 shl level)
            val cos = cos(keypoints.angle[i].toDouble()) * (steps[i] * shrink)
            val sin = sin(keypoints.angle[i].toDouble()) * (steps[i] * shrink)
            val x = keypoints.xy[2 * i] * shrink - 0.5 + atlas.x[level] - (SIDE - 1) / 2.0 * (cos - sin)
            val y = keypoints.xy[2 * i + 1] * shrink - 0.5 + atlas.y[level] - (SIDE - 1) / 2.0 * (sin + cos)
            sample(atlas, whole(x), whole(y), whole(cos), whole(sin), samples)
            withoutLight(samples, out, i * PIXELS)
        }
        return out
    }

    /** The least at which samples are at most the root of two pixels apart. */
    private fun levelOf(step: Double, highest: Int): Int {
        var level = 0
        while (level < highest && step * step > 2.0 * (1 shl 2 * level)) level++
        return level
    }

    private fun whole(value: Double) = Math.rint(value * (1 shl ONE)).toInt()

    /** In units of 1/1024 grey level. */
    private fun sample(atlas: Atlas, x0: Int, y0: Int, cos: Int, sin: Int, out: IntArray) {
        val one = 1 shl STEP
        for (down in 0 until SIDE) {
            for (across in 0 until SIDE) {
                val x = (x0 + across * cos - down * sin) shr (ONE - STEP)
                val y = (y0 + across * sin + down * cos) shr (ONE - STEP)
                val fx = x and one - 1
                val fy = y and one - 1
                val at = (y shr STEP) * atlas.width + (x shr STEP)
                val top = atlas[at] * (one - fx) + atlas[at + 1] * fx
                val bottom = atlas[at + atlas.width] * (one - fx) + atlas[at + atlas.width + 1] * fx
                out[down * SIDE + across] = top * (one - fy) + bottom * fy
            }
        }
    }

    /** To mean 128 and standard deviation 42. Sums are whole; what follows is elementwise IEEE arithmetic. */
    private fun withoutLight(samples: IntArray, out: ByteArray, outAt: Int) {
        var total = 0L
        var squares = 0L
        for (sample in samples) {
            total += sample
            squares += sample.toLong() * sample
        }
        val mean = total.toDouble() / PIXELS
        val deviation = sqrt(max(squares.toDouble() / PIXELS - mean * mean, 0.0))
        val gain = (DEVIATION / max(deviation, (1 shl 2 * STEP).toDouble())).toFloat() // at least one grey level
        val middle = mean.toFloat()
        for (k in samples.indices) {
            val value = Math.rint(((samples[k].toFloat() - middle) * gain).toDouble()).toFloat() + MEAN
            out[outAt + k] = value.coerceIn(0f, 255f).toInt().toByte()
        }
    }

    /** The pyramid as one image, each level in a frame of one pixel: samples reach half a pixel outside. */
    private class Atlas(image: ByteArray, height: Int, width: Int, count: Int) {
        /** Where each level starts. */
        val x = IntArray(count)
        val y = IntArray(count)
        val width = width + 2 + if (count > 1) (width + 1) / 2 + 2 else 0
        private val pixels = ByteArray((height + 2 * count) * this.width)

        operator fun get(at: Int) = pixels[at].toInt() and 0xff

        init {
            var level = image
            var h = height
            var w = width
            for (k in 0 until count) {
                x[k] = if (k == 0) 1 else width + 3 // beside the image, one below the other
                y[k] = if (k < 2) 1 else y[k - 1] + h + 2
                if (k > 0) {
                    level = halved(level, h, w)
                    h = (h + 1) / 2
                    w = (w + 1) / 2
                }
                frame(level, h, w, x[k], y[k])
            }
        }

        private fun frame(level: ByteArray, h: Int, w: Int, left: Int, top: Int) {
            for (row in -1..h) {
                val from = row.coerceIn(0, h - 1) * w
                val to = (top + row) * width + left
                System.arraycopy(level, from, pixels, to, w)
                pixels[to - 1] = level[from]
                pixels[to + w] = level[from + w - 1]
            }
        }

        /** Each 2x2 pixels to their mean, a half rounded up; an odd last row or column counts twice. */
        private fun halved(level: ByteArray, h: Int, w: Int): ByteArray {
            val columns = (w + 1) / 2
            val out = ByteArray((h + 1) / 2 * columns)
            for (i in out.indices) {
                val above = 2 * (i / columns) * w
                val below = min(2 * (i / columns) + 1, h - 1) * w
                val left = 2 * (i % columns)
                val right = min(left + 1, w - 1)
                val upper = level.at(above + left) + level.at(above + right)
                val lower = level.at(below + left) + level.at(below + right)
                out[i] = ((upper + lower + 2) shr 2).toByte()
            }
            return out
        }

        private fun ByteArray.at(index: Int) = get(index).toInt() and 0xff
    }
}
