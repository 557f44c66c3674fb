package dev.hfnet.edge.android

import android.graphics.Bitmap
import android.graphics.ImageFormat
import android.media.Image
import dev.hfnet.edge.ImageException
import java.nio.ByteBuffer
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner

@RunWith(RobolectricTestRunner::class)
class FramesTest {
    @Test
    fun aPlaneStaysWhereItIs() {
        val memory = direct(1, 2, 3, 99, 4, 5, 6)
        val plane = Frames.ofPlanes(memory, rowStride = 4, pixelStride = 1, width = 3, height = 2, rotation = 90)
        assertEquals(listOf(2, 3, 4, 90), listOf(plane.height, plane.width, plane.rowStride, plane.rotation))
        memory.put(4, 44)
        assertEquals(44, plane.pixels[4])
        assertContentEquals(bytes(1, 2, 3, 99, 44, 5, 6), plane.copy(ByteArray(0)))
    }

    @Test
    fun aPlaneBeginsAtTheBuffersPosition() {
        val memory = direct(7, 7, 1, 2, 3, 4)
        memory.position(2)
        assertContentEquals(bytes(1, 2, 3, 4), Frames.ofPlanes(memory, 2, 1, 2, 2, 0).copy(ByteArray(0)))
        val apart = direct(7, 1, 9, 2, 9, 3, 9, 4)
        apart.position(1)
        assertContentEquals(bytes(1, 2, 3, 4), Frames.ofPlanes(apart, 4, 2, 2, 2, 0).copy(ByteArray(0)))
    }

    @Test
    fun memoryIsUsedAgainWhereItIsLongEnough() {
        val plane = Frames.ofPlanes(direct(1, 2, 3, 4), 2, 1, 2, 2, 0)
        val memory = ByteArray(5)
        assertEquals(memory, plane.copy(memory))
        assertContentEquals(bytes(1, 2, 3, 4, 0), memory)
    }

    @Test
    fun planesThatAreShorterThanTheySayAreRefused() {
        val memory = direct(1, 2, 3, 4, 5, 6)
        val shorter = listOf(Triple(4, 1, 3), Triple(2, 1, 3), Triple(4, 2, 2), Triple(3, 0, 3))
        for ((rowStride, pixelStride, width) in shorter) {
            assertFailsWith<ImageException> { Frames.ofPlanes(memory, rowStride, pixelStride, width, 2, 0) }
        }
        assertFailsWith<ImageException> { Frames.ofPlanes(memory, Int.MAX_VALUE, 2, 2, Int.MAX_VALUE, 0) }
        for (rotation in listOf(-90, 45, 360)) {
            assertFailsWith<ImageException> { Frames.ofPlanes(memory, 3, 1, 3, 2, rotation) }
        }
    }

    @Test
    fun theYPlaneOfAnImageIsItsGrey() {
        val y = direct(1, 2, 0, 3, 4)
        val plane = Frames.of(Picture(ImageFormat.YUV_420_888, 2, 2, y, 3), 270)
        assertEquals(270, plane.rotation)
        assertContentEquals(bytes(1, 2, 0, 3, 4), plane.copy(ByteArray(0)))
        assertFailsWith<ImageException> { Frames.of(Picture(ImageFormat.JPEG, 2, 2, y, 3), 0) }
    }

    @Test
    fun coloursBecomeTheLumaThatPillowMakes() {
        val colors = intArrayOf(-0x1, -0x1000000, -0x10000, -0xff0100, -0xffff01, -0xedcba9)
        val plane = Frames.of(Bitmap.createBitmap(colors, 3, 2, Bitmap.Config.ARGB_8888))
        // Image.new("RGB", ...).convert("L") of white, black, red, green, blue and (0x12, 0x34, 0x57)
        assertContentEquals(bytes(255, 0, 76, 150, 29, 46), plane.copy(ByteArray(0)))
        assertEquals(listOf(2, 3, 3), listOf(plane.height, plane.width, plane.rowStride))
    }

    private class Picture(
        private val kind: Int,
        private val columns: Int,
        private val rows: Int,
        private val y: ByteBuffer,
        private val stride: Int,
    ) : Image() {
        override fun getFormat() = kind
        override fun getWidth() = columns
        override fun getHeight() = rows
        override fun getTimestamp() = 0L
        override fun close() = Unit
        override fun getPlanes(): Array<Plane> = arrayOf(
            object : Plane() {
                override fun getRowStride() = stride
                override fun getPixelStride() = 1
                override fun getBuffer() = y
            },
        )
    }

    private fun bytes(vararg values: Int) = ByteArray(values.size) { values[it].toByte() }

    private fun direct(vararg values: Int): ByteBuffer =
        ByteBuffer.allocateDirect(values.size).also { it.put(bytes(*values)).flip() }
}
