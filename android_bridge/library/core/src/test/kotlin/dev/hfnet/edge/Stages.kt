package dev.hfnet.edge

import com.google.gson.JsonParser
import com.sun.management.ThreadMXBean
import dev.hfnet.edge.image.Blobs
import dev.hfnet.edge.image.Keypoints
import dev.hfnet.edge.image.Output
import dev.hfnet.edge.image.Reduction
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.search.Covisibility
import dev.hfnet.edge.search.Matches
import dev.hfnet.edge.search.Matching
import dev.hfnet.edge.search.Place
import dev.hfnet.edge.search.Retrieval
import java.io.File
import java.lang.management.ManagementFactory
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.system.exitProcess

private val threads = ManagementFactory.getThreadMXBean() as ThreadMXBean

/** Prints a stage's least milliseconds and the bytes that a call allocates in the end. */
private fun <T> clock(stage: String, repeat: Int = 40, run: () -> T): T {
    val self = Thread.currentThread().id
    var least = Long.MAX_VALUE
    var bytes = 0L
    var last: T? = null
    repeat(repeat) {
        val before = threads.getThreadAllocatedBytes(self)
        val start = System.nanoTime()
        last = run()
        least = minOf(least, System.nanoTime() - start)
        bytes = threads.getThreadAllocatedBytes(self) - before
    }
    println("$stage\t${least / 1e6}\t$bytes")
    return last!!
}

/** The time of stages on what `benchmarks/jvm_stages.py` recorded in a folder, and whether they find the same. */
fun main(arguments: Array<String>) {
    val folder = File(arguments[0])
    val about = JsonParser.parseString(File(folder, "about.json").readText()).asJsonObject
    fun bytes(name: String) = File(folder, "$name.bin").readBytes()

    fun floats(name: String): FloatArray {
        val data = ByteBuffer.wrap(bytes(name)).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        return FloatArray(data.limit()) { data[it] }
    }

    fun ints(name: String): IntArray {
        val data = ByteBuffer.wrap(bytes(name)).order(ByteOrder.LITTLE_ENDIAN).asIntBuffer()
        return IntArray(data.limit()) { data[it] }
    }

    fun output(name: String): Output {
        val said = about.getAsJsonObject(name)
        val (h, w, c) = said.getAsJsonArray("shape").map { it.asInt }
        if (said["dtype"].asString == "float32") return Output.of(floats(name), h, w, c)
        return Output.of(bytes(name), h, w, c, said["scale"].asFloat, said["zero_point"].asInt)
    }

    fun same(what: String, right: Boolean) {
        if (right) return
        println("$what differs")
        exitProcess(1)
    }

    val (h, w) = about.getAsJsonArray("valid").map { it.asInt }
    val pixels = bytes("pixels")
    val count = about["count"].asInt
    val logits = output("keypoint_logits")
    val parts = listOf("local_descriptors", "local_descriptors_quarter", "local_descriptors_half").filter { about.has(it) }
    val maps = parts.map { output(it) }
    val memory = Memory()
    val large = bytes("large")
    val size = about.getAsJsonArray("large").map { it.asInt }
    clock("reduce") { Reduction.shrink(large, size[0], size[1], size[1], h, w, memory) }
    val blobs = clock("blobs") { Blobs.find(pixels, w, h, w, count * 2 / 3, memory) }
    val scores = clock("scores") { Keypoints.scores(logits, memory) }
    val peaks = clock("detect") { Keypoints.detect(scores, w, h, w, count, about["radius"].asInt, 0.005f, 4, memory) }
    val points = clock("combine") { Blobs.combine(blobs, peaks, count, memory) }
    val descriptors = clock("descriptors") { Keypoints.descriptors(maps, points.xy, points.size, memory) }
    same("keypoints", points.xy.copyOf(2 * points.size).contentEquals(floats("xy")))
    same("descriptors", descriptors.copyOf(bytes("descriptors").size).contentEquals(bytes("descriptors")))
    for (name in about.getAsJsonArray("maps").map { it.asString }) {
        val map = LocalizationMap.open(File(about[name].asString))
        val global = bytes("global")
        val frames = clock("$name: retrieve") { Retrieval.priorFrames(map, global, 40, null, memory) }
        val places: List<Place> = clock("$name: cluster") { Covisibility.cluster(map, frames, 0, 10, memory) }
        val place = places[0]
        clock("$name: compared") { map.codec.compared(descriptors, points.size, memory) }
        clock("$name: decoded") { map.descriptors(place.landmarks, place.landmarkCount, memory) }
        val matches: Matches = clock("$name: match") {
            Matching.match(map, descriptors, points.size, place.landmarks, place.landmarkCount, memory)
        }
        same("keypoints in $name", matches.own().keypoints.contentEquals(ints("$name.keypoints")))
        same("landmarks in $name", matches.own().landmarks.contentEquals(ints("$name.landmarks")))
    }
}
