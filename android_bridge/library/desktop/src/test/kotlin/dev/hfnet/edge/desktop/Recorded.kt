package dev.hfnet.edge.desktop

import com.google.gson.JsonObject
import com.google.gson.JsonParser
import dev.hfnet.edge.image.Keypoints
import dev.hfnet.edge.image.Output
import dev.hfnet.edge.networks.Network
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import kotlin.math.max

/**
 * A folder that `benchmarks/jvm_network.py` wrote: networks, what they were given, what Python's interpreter returned.
 *
 *     recorded.json: [{name, file, inputs: [{pixels, outputs: {role: {file, dtype, scale, zero_point}}}]}]
 */
class Recorded(private val folder: File) {
    /** What each output of each network has in common with Python's. */
    fun compare(threads: Int): List<Compared> {
        val runtime = DesktopRuntime()
        val networks = JsonParser.parseString(File(folder, "recorded.json").readText()).asJsonArray
        return networks.map { it.asJsonObject }.flatMap { about ->
            Network.open(File(folder, about["file"].asString), runtime, threads).use { compare(it, about, threads) }
        }
    }

    private fun compare(network: Network, about: JsonObject, threads: Int): List<Compared> {
        val found = LinkedHashMap<String, Compared>()
        for (input in about.getAsJsonArray("inputs").map { it.asJsonObject }) {
            val pixels = File(folder, input["pixels"].asString).readBytes()
            val start = System.nanoTime()
            network.run(pixels) { outputs ->
                val seconds = (System.nanoTime() - start) * 1e-9
                for ((role, said) in input.getAsJsonObject("outputs").entrySet()) {
                    val one = found.getOrPut(role) { Compared(about["name"].asString, role, network.kernels, threads) }
                    one.seconds.add(seconds)
                    one.add(outputs.getValue(role), said.asJsonObject)
                }
            }
        }
        return found.values.toList()
    }

    private fun Compared.add(found: Output, said: JsonObject) {
        val bytes = File(folder, said["file"].asString).readBytes()
        val floats = found.floats
        val differ = if (floats != null) {
            check(said["dtype"].asString == "float32" && bytes.size == 4 * floats.size) { "$network, $role: a shape" }
            val data = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
            val said = FloatArray(floats.size) { data.getFloat(4 * it) }
            val count = floats.indices.count { floats[it].toRawBits() != said[it].toRawBits() }
            if (count > 0) {
                largest = max(largest, floats.indices.maxOf { abs(floats[it] - said[it]) })
                val rounded = Keypoints.quantize(floats, found.channels)
                val other = Keypoints.quantize(said, found.channels)
                roundedApart += rounded.indices.count { rounded[it] != other[it] }
            }
            count
        } else {
            check(said["dtype"].asString == "int8" && bytes.size == found.size) { "$network, $role: a shape" }
            val same = said["scale"].asFloat == found.scale && said["zero_point"].asInt == found.zeroPoint
            if (same) bytes.indices.count { bytes[it] != found.bytes!![it] } else bytes.size
        }
        values += found.size
        differing += differ
    }

    /** What was found of one output of a network. */
    class Compared(val network: String, val role: String, val kernels: String, val threads: Int) {
        val seconds = ArrayList<Double>()
        var values = 0L
        var differing = 0L

        /** Of float outputs: the largest difference, and how many values differ at unit length times 127, rounded. */
        var largest = 0f
        var roundedApart = 0L
    }
}

/** Prints what [Recorded] finds in a folder, a line for each output and number of threads. */
fun main(arguments: Array<String>) {
    for (threads in 1..2) {
        for (one in Recorded(File(arguments[0])).compare(threads)) {
            val median = one.seconds.sorted()[one.seconds.size / 2]
            println(
                listOf(
                    one.network, one.role, one.kernels, one.threads, one.seconds.size, one.values, one.differing,
                    one.largest, one.roundedApart, median,
                ).joinToString("\t"),
            )
        }
    }
}
