package dev.hfnet.edge.android

import android.content.res.AssetFileDescriptor
import android.content.res.AssetManager
import dev.hfnet.edge.HFNetEdgeException
import dev.hfnet.edge.map.ByteBufferSource
import dev.hfnet.edge.map.ByteSource
import java.io.FileNotFoundException
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.channels.FileChannel

/** An asset is missing, or is compressed in the APK and so cannot be mapped. */
public class AssetException(problem: String, remedy: String, cause: Throwable? = null) :
    HFNetEdgeException(problem, remedy, cause)

/** Maps and networks among an app's assets, mapped into memory: nothing is copied or unpacked. */
public object Assets {
    /**
     * The bytes of a map.
     *
     * @param name as `AssetManager.open` takes it.
     * @throws AssetException there is none of this name, or it is compressed.
     * @throws IOException it cannot be read.
     */
    @JvmStatic
    @Throws(IOException::class)
    public fun source(assets: AssetManager, name: String): ByteSource = ByteBufferSource(buffer(assets, name))

    /**
     * The bytes of a network, direct and read-only.
     *
     * @param name as `AssetManager.open` takes it.
     * @throws AssetException there is none of this name, or it is compressed.
     * @throws IOException it cannot be read.
     */
    @JvmStatic
    @Throws(IOException::class)
    public fun buffer(assets: AssetManager, name: String): ByteBuffer = try {
        assets.openFd(name).use { mapped(it) }
    } catch (e: FileNotFoundException) {
        throw if (isThere(assets, name)) compressed(name, e) else {
            AssetException("the app has no asset \"$name\"", "put it into src/main/assets", e)
        }
    }

    /** An asset's part of the APK, or a file of its own. */
    internal fun mapped(file: AssetFileDescriptor): ByteBuffer = file.createInputStream().channel.use {
        it.map(FileChannel.MapMode.READ_ONLY, file.startOffset, file.length)
    }

    private const val NO_COMPRESS = "androidResources { noCompress += listOf(\"hfmap\", \"tflite\") }"

    private fun isThere(assets: AssetManager, name: String): Boolean = try {
        assets.open(name).close()
        true
    } catch (_: FileNotFoundException) {
        false
    }

    private fun compressed(name: String, cause: Throwable) = AssetException(
        "the asset \"$name\" is compressed in the APK, and so cannot be mapped",
        "write $NO_COMPRESS in the android block of the app's build.gradle.kts",
        cause,
    )
}
