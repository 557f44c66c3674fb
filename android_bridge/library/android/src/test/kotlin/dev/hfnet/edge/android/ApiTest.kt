package dev.hfnet.edge.android

import java.io.File
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlinx.validation.api.dump
import kotlinx.validation.api.filterOutNonPublic
import kotlinx.validation.api.loadApiFromJvmClasses

/** The public API is the one that is written down. `make android-api` writes it anew, after a change on purpose. */
class ApiTest {
    @Test
    fun core() = compare("core")

    @Test
    fun android() = compare("android")

    private fun compare(module: String) {
        val library = File(System.getProperty("hfnet.root"), "android_bridge/library")
        val classes = File(library, "$module/target/classes").walk().filter { it.extension == "class" }.sorted()
        val found = classes.map { it.inputStream() }.loadApiFromJvmClasses().filterOutNonPublic()
            .dump(StringBuilder()).toString()
        val written = File(library, "$module/api/$module.api")
        if (System.getProperty("hfnet.api") == "write") written.writeText(found)
        assertEquals(written.readText(), found, "the API of $module changed: if on purpose, run make android-api")
    }
}
