package dev.hfnet.edge

import dev.hfnet.edge.image.Colors
import dev.hfnet.edge.image.Luma
import java.awt.image.DataBuffer
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import javax.imageio.ImageIO

/** A PNG of the golden vectors as it is stored: grey levels row by row, and the orientation that its EXIF says. */
class StoredImage(val grey: ByteArray, val height: Int, val width: Int, val orientation: Int) {
    companion object {
        fun read(file: File): StoredImage {
            val image = ImageIO.read(file)
            val bands = image.raster.numBands
            val values = image.raster.getPixels(0, 0, image.width, image.height, null as IntArray?)
            val shift = if (image.raster.dataBuffer.dataType == DataBuffer.TYPE_USHORT) 8 else 0
            val bytes = ByteArray(values.size) { (values[it] shr shift).toByte() }
            check(bands == 1 || bands == 3) { "$file has $bands channels" }
            val grey = if (bands == 1) bytes else Luma.of(bytes, image.height, image.width, 3 * image.width, Colors.RGB)
            return StoredImage(grey, image.height, image.width, orientation(file.readBytes()))
        }

        /** Of the chunk eXIf, if there is one. */
        private fun orientation(png: ByteArray): Int {
            val data = ByteBuffer.wrap(png)
            var at = 8
            while (at < png.size) {
                val length = data.getInt(at)
                if (String(png, at + 4, 4, Charsets.US_ASCII) == "eXIf") {
                    val exif = ByteBuffer.wrap(png, at + 8, length).slice()
                    if (exif.get(0) == 'I'.code.toByte()) exif.order(ByteOrder.LITTLE_ENDIAN)
                    val table = exif.getInt(4)
                    val tags = (0 until exif.getShort(table)).map { table + 2 + 12 * it }
                    return exif.getShort(tags.single { exif.getShort(it).toInt() == 0x0112 } + 8).toInt()
                }
                at += 12 + length
            }
            return 1
        }
    }
}
