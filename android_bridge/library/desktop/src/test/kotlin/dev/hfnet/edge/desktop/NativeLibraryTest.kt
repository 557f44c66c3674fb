package dev.hfnet.edge.desktop

import java.io.File
import java.lang.reflect.InvocationTargetException
import java.net.URLClassLoader
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import org.bytedeco.javacpp.Loader

/** Where there is no native library, one line says so, and what to add. */
class NativeLibraryTest {
    @Test
    fun `a class path without this machine's library is refused by name`() {
        val machine = Loader.getPlatform()
        val path = System.getProperty("surefire.test.class.path") ?: System.getProperty("java.class.path")
        val files = path.split(File.pathSeparator).filter { it.isNotEmpty() && machine !in File(it).name }
        val urls = files.map { File(it).toURI().toURL() }.toTypedArray()
        URLClassLoader(urls, ClassLoader.getSystemClassLoader().parent).use { loader ->
            val runtime = loader.loadClass("dev.hfnet.edge.desktop.DesktopRuntime")
            val e = assertFailsWith<InvocationTargetException> { runtime.getDeclaredConstructor().newInstance() }
            assertEquals("dev.hfnet.edge.ModelException", e.targetException.javaClass.name)
            val said = e.targetException.message!!
            assertContains(said, "TensorFlow Lite's native library for $machine cannot be loaded")
            assertContains(said, "with the classifier $machine")
            assertEquals(1, said.lines().size)
        }
    }
}
