package dev.hfnet.edge

import com.google.gson.JsonElement
import com.google.gson.JsonObject
import com.google.gson.JsonParser
import dev.hfnet.edge.image.Output
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** The folders that tests read: golden vectors and sample maps of the checkout. */
object Golden {
    val root = File(System.getProperty("hfnet.root"))
    private val folder = File(root, "golden")
    private val manifest = JsonParser.parseString(File(folder, "manifest.json").readText()).asJsonObject
    private val arrays = manifest.getAsJsonObject("arrays")

    fun cases(stage: String): List<JsonObject> =
        manifest.getAsJsonArray("cases").map { it.asJsonObject }.filter { it["stage"].asString == stage }

    fun file(name: String) = File(folder, name)

    fun bytes(value: JsonElement): ByteArray {
        require(arrays.getAsJsonObject(value.asString)["dtype"].asString in setOf("int8", "uint8")) { value }
        return file(value.asString).readBytes()
    }

    fun shape(value: JsonElement): List<Int> =
        arrays.getAsJsonObject(value.asString).getAsJsonArray("shape").map { it.asInt }

    /** A list of numbers, or an array of whole ones. */
    fun ints(value: JsonElement): IntArray {
        if (value.isJsonArray) return value.asJsonArray.map { it.asInt }.toIntArray()
        val dtype = arrays.getAsJsonObject(value.asString)["dtype"].asString
        val data = buffer(value)
        return when (dtype) {
            "int32", "uint32" -> IntArray(data.limit() / 4) { data.getInt(4 * it) }
            "int64" -> IntArray(data.limit() / 8) { Math.toIntExact(data.getLong(8 * it)) }
            "int8" -> IntArray(data.limit()) { data.get(it).toInt() }
            else -> error("$value is $dtype")
        }
    }

    fun doubles(value: JsonElement): DoubleArray {
        val data = buffer(value)
        return DoubleArray(data.limit() / 8) { data.getDouble(8 * it) }
    }

    fun floats(value: JsonElement): FloatArray {
        val data = buffer(value)
        return FloatArray(data.limit() / 4) { data.getFloat(4 * it) }
    }

    /** A network's output, (h, w, C). */
    fun output(value: JsonElement): Output {
        val about = arrays.getAsJsonObject(value.asString)
        val (h, w, c) = shape(value)
        if (about["dtype"].asString == "float32") return Output.of(floats(value), h, w, c)
        return Output.of(bytes(value), h, w, c, about["scale"].asFloat, about["zero_point"].asInt)
    }

    private fun buffer(value: JsonElement): ByteBuffer =
        ByteBuffer.wrap(file(value.asString).readBytes()).order(ByteOrder.LITTLE_ENDIAN)
}
