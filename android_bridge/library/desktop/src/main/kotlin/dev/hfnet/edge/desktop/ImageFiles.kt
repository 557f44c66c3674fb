package dev.hfnet.edge.desktop

import com.drew.imaging.ImageMetadataReader
import com.drew.imaging.ImageProcessingException
import com.drew.metadata.MetadataException
import com.drew.metadata.exif.ExifIFD0Directory
import com.drew.metadata.jpeg.JpegDirectory
import dev.hfnet.edge.Frame
import dev.hfnet.edge.ImageException
import dev.hfnet.edge.image.Colors
import dev.hfnet.edge.image.Luma
import java.io.ByteArrayInputStream
import java.io.File
import java.io.IOException
import org.opencv.core.CvException
import org.opencv.core.CvType
import org.opencv.core.Mat
import org.opencv.core.MatOfByte
import org.opencv.imgcodecs.Imgcodecs

/** Image files as frames: the same grey levels as the Python runtime's, of a JPEG the luma that is stored in it. */
public object ImageFiles {
    private const val MAX_FILE = 1L shl 28
    private const val REMEDY = "give a JPEG, PNG, TIFF, WebP, BMP, PGM or PPM file"

    /**
     * Decodes a file.
     *
     * @param inputHeight of the network, as [inputWidth]: a JPEG that is much larger is decoded at a half, a quarter or
     *   an eighth, as the Python runtime does. Where nobody knows how the image is turned, leave both out.
     * @throws ImageException the file is missing or does not decode.
     */
    @JvmStatic
    @JvmOverloads
    public fun read(file: File, inputHeight: Int = Int.MAX_VALUE, inputWidth: Int = Int.MAX_VALUE): Frame {
        DesktopOpenCv.load()
        val content = try {
            if (file.length() > MAX_FILE) throw ImageException("$file has ${file.length()} bytes", "reduce it")
            file.readBytes()
        } catch (e: IOException) {
            throw ImageException("cannot read the image $file: ${e.message}", "check the file's name", e)
        }
        if (content.isEmpty()) throw ImageException("the image $file is empty (0 bytes)", "copy it again")
        val about = about(content)
        val sideways = about.orientation >= 5
        val excess = maxOf(
            1.0,
            about.width.toDouble() / if (sideways) inputHeight else inputWidth,
            about.height.toDouble() / if (sideways) inputWidth else inputHeight,
        )
        val part = if (about.isJpeg && about.width % 8 == 0 && about.height % 8 == 0) reduction(about, excess) else 1
        val pixels = decode(content, if (about.isJpeg) GREY.getValue(part) else AS_IT_IS, file)
        try {
            val grey = grey(pixels, file)
            return Frame.ofFile(grey, pixels.cols(), pixels.rows(), about.orientation, part)
        } finally {
            pixels.release()
        }
    }

    private class About(val isJpeg: Boolean, val width: Int, val height: Int, val orientation: Int)

    private fun about(content: ByteArray): About = try {
        val metadata = ImageMetadataReader.readMetadata(ByteArrayInputStream(content))
        val jpeg = metadata.getFirstDirectoryOfType(JpegDirectory::class.java)
        val exif = metadata.getFirstDirectoryOfType(ExifIFD0Directory::class.java)
        val orientation = exif?.getInteger(ExifIFD0Directory.TAG_ORIENTATION)?.takeIf { it in 1..8 } ?: 1
        About(jpeg != null, jpeg?.imageWidth ?: 0, jpeg?.imageHeight ?: 0, orientation)
    } catch (_: ImageProcessingException) { // of formats that it does not know
        About(false, 0, 0, 1)
    } catch (_: MetadataException) {
        About(false, 0, 0, 1)
    } catch (_: IOException) {
        About(false, 0, 0, 1)
    }

    /** The largest of 8, 4 and 2 that leaves what is needed, as Pillow's draft takes it; else 1. */
    private fun reduction(about: About, excess: Double): Int {
        val width = (about.width / excess).toInt()
        val height = (about.height / excess).toInt()
        val most = minOf(about.width / maxOf(1, width), about.height / maxOf(1, height))
        return intArrayOf(8, 4, 2).firstOrNull { it <= most } ?: 1
    }

    private fun decode(content: ByteArray, flags: Int, file: File): Mat {
        val bytes = MatOfByte(*content)
        try {
            val pixels = Imgcodecs.imdecode(bytes, flags or Imgcodecs.IMREAD_IGNORE_ORIENTATION)
            if (pixels.empty()) throw ImageException("the image $file does not decode", REMEDY)
            return pixels
        } catch (e: CvException) {
            throw ImageException("the image $file does not decode: ${e.message}", REMEDY, e)
        } finally {
            bytes.release()
        }
    }

    /** Grey levels of 8 or 16 bits, of one, three or four channels. */
    private fun grey(pixels: Mat, file: File): ByteArray {
        val count = pixels.rows() * pixels.cols()
        val values = ByteArray(count * pixels.channels())
        when (CvType.depth(pixels.type())) {
            CvType.CV_8U -> pixels.get(0, 0, values)
            CvType.CV_16U -> {
                val wide = ShortArray(values.size)
                pixels.get(0, 0, wide)
                for (i in wide.indices) values[i] = (wide[i].toInt() shr 8).toByte()
            }
            else -> throw ImageException("$file has 32-bit pixels", "save it with 8 or 16 bits")
        }
        val w = pixels.cols()
        return when (pixels.channels()) {
            1 -> values
            3 -> Luma.of(values, pixels.rows(), w, 3 * w, Colors.BGR)
            4 -> Luma.of(values, pixels.rows(), w, 4 * w, Colors.BGRA)
            else -> throw ImageException("$file has ${pixels.channels()} channels", REMEDY)
        }
    }

    private const val AS_IT_IS = Imgcodecs.IMREAD_UNCHANGED
    private val GREY = mapOf(
        1 to Imgcodecs.IMREAD_GRAYSCALE,
        2 to Imgcodecs.IMREAD_REDUCED_GRAYSCALE_2,
        4 to Imgcodecs.IMREAD_REDUCED_GRAYSCALE_4,
        8 to Imgcodecs.IMREAD_REDUCED_GRAYSCALE_8,
    )
}
