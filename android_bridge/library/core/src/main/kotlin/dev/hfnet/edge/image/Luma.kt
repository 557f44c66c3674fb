package dev.hfnet.edge.image

import dev.hfnet.edge.ImageException

/** The order of a pixel's bytes. */
public enum class Colors(internal val bytes: Int, internal val red: Int, internal val blue: Int) {
    RGB(3, 0, 2),
    BGR(3, 2, 0),
    RGBA(4, 0, 2),
    BGRA(4, 2, 0),
}

/** Colours to grey levels: luma of Rec. 601 in whole numbers, rounded. Alpha is ignored. */
public object Luma {
    /**
     * Of (h, w) pixels of three or four bytes.
     *
     * @param pixels rows of [stride] bytes. @return (h, w) grey levels, row by row.
     * @throws ImageException the bytes are fewer than that.
     */
    @JvmStatic
    public fun of(pixels: ByteArray, h: Int, w: Int, stride: Int, colors: Colors): ByteArray {
        val n = colors.bytes
        val row = n.toLong() * w
        if (h <= 0 || w <= 0 || stride < row || pixels.size < stride.toLong() * (h - 1) + row) {
            throw ImageException(
                "${pixels.size} bytes are no ${h}x$w pixels of $colors with $stride bytes a row", "give all rows",
            )
        }
        val out = ByteArray(h * w)
        for (y in 0 until h) {
            for (x in 0 until w) {
                val at = y * stride + n * x
                out[y * w + x] = level(
                    pixels[at + colors.red].toInt() and 0xff, pixels[at + 1].toInt() and 0xff,
                    pixels[at + colors.blue].toInt() and 0xff,
                )
            }
        }
        return out
    }

    /** Of pixels as Android's `Bitmap.getPixels` gives them, 0xAARRGGBB: a grey level of each. */
    @JvmStatic
    public fun ofArgb(pixels: IntArray): ByteArray = ByteArray(pixels.size) {
        val pixel = pixels[it]
        level(pixel shr 16 and 0xff, pixel shr 8 and 0xff, pixel and 0xff)
    }

    private fun level(r: Int, g: Int, b: Int): Byte = ((r * 19595 + g * 38470 + b * 7471 + 0x8000) shr 16).toByte()
}
