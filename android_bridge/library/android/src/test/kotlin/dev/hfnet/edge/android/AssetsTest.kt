package dev.hfnet.edge.android

import android.content.res.AssetFileDescriptor
import android.content.res.AssetManager
import android.os.ParcelFileDescriptor
import dev.hfnet.edge.map.LocalizationMap
import java.io.File
import java.util.zip.CRC32
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import org.junit.Rule
import org.junit.rules.TemporaryFolder
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment

@RunWith(RobolectricTestRunner::class)
class AssetsTest {
    @get:Rule
    val folder = TemporaryFolder()
    private val map = File(System.getProperty("hfnet.root"), "maps/samples").walk().first { it.extension == "hfmap" }

    @Test
    fun aStoredAssetIsMapped() {
        val opened = LocalizationMap.read(Assets.source(assets(), "stored.hfmap"), "stored.hfmap")
        assertEquals(LocalizationMap.open(map).imageNames, opened.imageNames)
        assertTrue(Assets.buffer(assets(), "stored.hfmap").isReadOnly)
    }

    @Test
    fun aCompressedAssetSaysWhatToDo() {
        val e = assertFailsWith<AssetException> { Assets.source(assets(), "deflated.hfmap") }
        assertContains(e.problem, "compressed")
        assertContains(e.remedy, """androidResources { noCompress += listOf("hfmap", "tflite") }""")
    }

    @Test
    fun aMissingAssetIsNamed() {
        val e = assertFailsWith<AssetException> { Assets.source(assets(), "none.hfmap") }
        assertContains(e.problem, "none.hfmap")
    }

    @Test
    fun onlyTheAssetsPartOfAFileIsMapped() {
        val file = folder.newFile()
        file.writeBytes(ByteArray(100) { it.toByte() })
        val whole = ParcelFileDescriptor.open(file, ParcelFileDescriptor.MODE_READ_ONLY)
        val part = AssetFileDescriptor(whole, 33, 20).use { Assets.mapped(it) }
        assertEquals(20, part.remaining())
        assertEquals(33, part[0])
    }

    /** Of an APK with the map stored, and deflated. */
    private fun assets(): AssetManager {
        val apk = File(folder.root, "app.apk")
        ZipOutputStream(apk.outputStream()).use { zip ->
            val bytes = map.readBytes()
            zip.putNextEntry(
                ZipEntry("assets/stored.hfmap").apply {
                    method = ZipEntry.STORED
                    size = bytes.size.toLong()
                    crc = CRC32().apply { update(bytes) }.value
                },
            )
            zip.write(bytes)
            zip.putNextEntry(ZipEntry("assets/deflated.hfmap"))
            zip.write(bytes)
        }
        val assets = RuntimeEnvironment.getApplication().assets
        AssetManager::class.java.getMethod("addAssetPath", String::class.java).invoke(assets, apk.path)
        return assets
    }
}
