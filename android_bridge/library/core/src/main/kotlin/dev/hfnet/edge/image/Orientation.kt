package dev.hfnet.edge.image

import dev.hfnet.edge.InputException
import dev.hfnet.edge.Memory

/** How stored pixels are turned to be upright, as EXIF numbers it: 1 to 8 (EXIF 2.3, tag 0x0112). */
internal object Orientation {
    private const val BAND = 32

    /** Of degrees clockwise. Throws [InputException]: they are no quarter turns. */
    fun ofRotation(degrees: Int): Int = when (degrees) {
        0 -> 1
        90 -> 6
        180 -> 3
        270 -> 8
        else -> throw InputException("rotation is $degrees", "give 0, 90, 180 or 270 degrees clockwise")
    }

    /** Degrees clockwise, of the orientations that mirror nothing. */
    val rotations = mapOf(1 to 0, 6 to 90, 3 to 180, 8 to 270)

    /** Upright, rows are what columns were. */
    fun isSideways(orientation: Int): Boolean = orientation >= 5

    /** The upright image of (h, w) stored grey levels, without a stride; it lives in [memory]. */
    fun turned(grey: ByteArray, h: Int, w: Int, stride: Int, orientation: Int, memory: Memory = Memory()): ByteArray {
        val sideways = isSideways(orientation)
        val height = if (sideways) w else h
        val width = if (sideways) h else w
        var down = if (sideways) 1 else stride // bytes from an upright row to the next
        var across = if (sideways) stride else 1
        var start = 0
        if (orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8) {
            start += (height - 1) * down
            down = -down
        }
        if (orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7) {
            start += (width - 1) * across
            across = -across
        }
        val out = memory.bytes("photo: upright", height * width)
        for (left in 0 until width step BAND) { // so that what is read stays in the processor's cache
            for (y in 0 until height) {
                for (x in left until minOf(width, left + BAND)) out[y * width + x] = grey[start + y * down + x * across]
            }
        }
        return out
    }

    /** A point of the upright image of [w] columns and [h] rows, in the stored one. */
    fun back(orientation: Int, x: Double, y: Double, w: Int, h: Int): DoubleArray =
        DoubleArray(2).also { back(orientation, x, y, w, h, it, 0) }

    /** As the other one, into [out] at [at]. */
    fun back(orientation: Int, x: Double, y: Double, w: Int, h: Int, out: DoubleArray, at: Int) {
        val across = if (orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7) w - x else x
        val down = if (orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8) h - y else y
        out[at] = if (isSideways(orientation)) down else across
        out[at + 1] = if (isSideways(orientation)) across else down
    }

    /** The inverse of [back]. */
    fun there(orientation: Int, x: Double, y: Double, w: Int, h: Int): DoubleArray = when (orientation) {
        6 -> back(8, x, y, h, w)
        8 -> back(6, x, y, h, w)
        else -> if (isSideways(orientation)) back(orientation, x, y, h, w) else back(orientation, x, y, w, h)
    }
}
