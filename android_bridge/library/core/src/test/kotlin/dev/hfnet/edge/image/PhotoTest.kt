package dev.hfnet.edge.image

import dev.hfnet.edge.Camera
import dev.hfnet.edge.CameraException
import dev.hfnet.edge.ImageException
import dev.hfnet.edge.InputException
import dev.hfnet.edge.OpenCV
import kotlin.random.Random
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import org.opencv.core.CvType
import org.opencv.core.Mat
import org.opencv.core.Size
import org.opencv.imgproc.Imgproc

/** Frames to a network's input and back: enlarged as OpenCV does, turned eight ways, of colours. */
class PhotoTest {
    private fun levels(random: Random, h: Int, w: Int): ByteArray = random.nextBytes(h * w)

    @Test
    fun imagesAreEnlargedToOpenCVsBits() {
        checkNotNull(OpenCV.loaded)
        val random = Random(1)
        repeat(2000) {
            val h = random.nextInt(1, 40)
            val w = random.nextInt(1, 40)
            val toHeight = h + random.nextInt(0, 8 * h)
            val toWidth = w + random.nextInt(0, 8 * w)
            val grey = levels(random, h, w)
            val expected = Mat()
            val mat = Mat(h, w, CvType.CV_8UC1).also { it.put(0, 0, grey) }
            val linearExact = 5 // INTER_LINEAR_EXACT, which Java has no name for
            Imgproc.resize(mat, expected, Size(toWidth.toDouble(), toHeight.toDouble()), 0.0, 0.0, linearExact)
            val said = ByteArray(toHeight * toWidth).also { expected.get(0, 0, it) }
            val found = Enlargement.enlarge(grey, h, w, w, toHeight, toWidth)
            assertContentEquals(said, found, "${h}x$w to ${toHeight}x$toWidth")
        }
    }

    @Test
    fun rowsMayHaveAStride() {
        val grey = levels(Random(2), 40, 60)
        val strided = ByteArray(40 * 71 - 11)
        for (y in 0 until 40) grey.copyInto(strided, 71 * y, 60 * y, 60 * y + 60)
        val expected = Photo.of(grey, 40, 60, 60, 64, 96).pixels
        assertContentEquals(expected, Photo.of(strided, 40, 60, 71, 64, 96).pixels)
        assertFailsWith<ImageException> { Photo.of(strided, 41, 60, 71, 64, 96) }
        assertFailsWith<ImageException> { Photo.of(strided, 40, 60, 59, 64, 96) }
    }

    @Test
    fun lumaIsOfRec601() {
        fun of(r: Int, g: Int, b: Int, colors: Colors): Int {
            val pixel = byteArrayOf(r.toByte(), g.toByte(), b.toByte(), 99)
            return Luma.of(pixel, 1, 1, 4, colors)[0].toInt() and 0xff
        }
        // What Pillow says.
        assertEquals(listOf(255, 76, 150, 29), listOf(-1 to 0, 0 to 1, 1 to 1, 2 to 1).map { (channel, only) ->
            val v = IntArray(3) { if (only == 0 || it == channel) 255 else 0 }
            of(v[0], v[1], v[2], Colors.RGB)
        })
        assertEquals(of(10, 200, 77, Colors.RGB), of(77, 200, 10, Colors.BGR))
        assertEquals(of(10, 200, 77, Colors.RGB), of(10, 200, 77, Colors.RGBA))
        val argb = intArrayOf(0x7f0ac84d, 0xff4dc80a.toInt())
        val levels = byteArrayOf(of(10, 200, 77, Colors.RGB).toByte(), of(10, 200, 77, Colors.BGR).toByte())
        assertContentEquals(levels, Luma.ofArgb(argb))
        assertFailsWith<ImageException> { Luma.of(ByteArray(17), 2, 3, 9, Colors.RGB) }
        assertFailsWith<ImageException> { Luma.of(ByteArray(24), 2, 3, 9, Colors.RGBA) }
    }

    @Test
    fun whatTheNetworkSeesIsWhereTheCameraSaysInAllOrientations() {
        val h = 48
        val w = 64
        val stored = levels(Random(3), h, w)
        val camera = Camera.parse("SIMPLE_PINHOLE $w $h 60 32 24")
        val uprights = HashSet<List<Byte>>()
        for (orientation in 1..8) {
            val sideways = orientation >= 5
            val height = if (sideways) w else h
            val width = if (sideways) h else w
            val photo = Photo.ofFile(stored, h, w, w, height, width, orientation, if (sideways) camera else null)
            assertEquals(if (sideways) orientation else 1, photo.orientation)
            uprights.add(photo.pixels.asList())
            if (!sideways) continue
            for (y in 0 until height) {
                for (x in 0 until width) {
                    val (cx, cy) = photo.toCamera(x + 0.5, y + 0.5).map { it.toInt() }
                    assertEquals(stored[cy * w + cx], photo.pixels[y * width + x], "$orientation: $x, $y")
                    assertContentEquals(doubleArrayOf(x + 0.5, y + 0.5), photo.fromCamera(cx + 0.5, cy + 0.5))
                }
            }
        }
        assertEquals(8, uprights.size)
        val upright = Photo.ofFile(stored, h, w, w, w, h, 6, Camera.parse("SIMPLE_PINHOLE $h $w 60 24 32"))
        assertEquals(1, upright.orientation)
        assertContentEquals(doubleArrayOf(10.5, 20.5), upright.toCamera(10.5, 20.5))
    }

    @Test
    fun aStatedRotationIsOfTheStoredPixels() {
        val stored = levels(Random(4), 48, 48)
        for ((degrees, orientation) in listOf(0 to 1, 90 to 6, 180 to 3, 270 to 8)) {
            val photo = Photo.of(stored, 48, 48, 48, 48, 48, degrees)
            assertEquals(orientation, photo.orientation)
            assertContentEquals(Photo.ofFile(stored, 48, 48, 48, 48, 48, orientation, null).pixels, photo.pixels)
            for (at in listOf(0, 5, 47, 48 * 47, 48 * 20 + 3)) {
                val (x, y) = photo.toCamera(at % 48 + 0.5, at / 48 + 0.5).map { it.toInt() }
                assertEquals(stored[48 * y + x], photo.pixels[at])
            }
        }
        for (wrong in listOf(45, -90, 360)) {
            assertFailsWith<InputException> { Photo.of(stored, 48, 48, 48, 48, 48, wrong) }
        }
    }

    @Test
    fun framesAndCamerasOfOtherSizesAreNamed() {
        val e = assertFailsWith<CameraException> {
            Photo.ofFile(ByteArray(48 * 64), 48, 64, 64, 64, 96, 1, Camera.parse("SIMPLE_PINHOLE 48 64 60 24 32"))
        }
        assertEquals("the image is 64x48, its camera 48x64", e.problem)
        for ((h, w) in listOf(31 to 64, 64 to 31, 0 to 64, 32768 to 16384)) {
            assertFailsWith<ImageException> { Photo.of(ByteArray(4096), h, w, w, 64, 96) }
        }
    }
}
