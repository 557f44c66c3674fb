package dev.hfnet.edge.app

import dev.hfnet.edge.Camera
import dev.hfnet.edge.InputException
import dev.hfnet.edge.LocalizationConfig
import dev.hfnet.edge.Localizer
import dev.hfnet.edge.desktop.DesktopOpenCv
import dev.hfnet.edge.desktop.DesktopRuntime
import dev.hfnet.edge.desktop.ImageFiles
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.methods.Method

import dev.hfnet.edge.networks.Networks
import dev.hfnet.edge.record.Recorder
import dev.hfnet.edge.shell.Json
import java.io.File
import java.io.IOException

/**
 * A folder with a job for one machine: job.json, networks, map.hfmap, images. What comes of it goes to its folder out.
 *
 * Tasks are "record", for `hfnet-parity`, and "bench".
 */
internal class Job(private val folder: File) {
    private class Query(val name: String, val file: File, val camera: Camera)

    /** Does it, and tells after each query how many are done of how many. */
    fun run(onQuery: (Int, Int) -> Unit) {
        val (task, threads, method, queries) = read()
        DesktopOpenCv.load()
        val files = folder.listFiles { file -> file.name.endsWith(".tflite") }!!.sorted()
        val mapFile = File(folder, "map.hfmap")
        Networks.open(DesktopRuntime(), files, threads).use { networks ->
            val localizer = Localizer(LocalizationMap.open(mapFile), networks, LocalizationConfig(Method.named(method)))
            val out = File(folder, "out").also { it.mkdirs() }
            if (task == "bench") {
                File(out, "bench.json").writeText(Json.write(bench(localizer, queries, onQuery)))
                return
            }
            val recorder = Recorder(localizer)
            queries.forEachIndexed { i, query ->
                recorder.record(query.name, frame(localizer, query), query.camera)
                onQuery(i + 1, queries.size)
            }
            val stream = File(out, "recording.zip").outputStream()
            recorder.write(stream, about(), files.map { it.readBytes() }, mapFile.readBytes())
        }
    }

    private fun frame(localizer: Localizer, query: Query) =
        localizer.networks.image.description.let { ImageFiles.read(query.file, it.inputHeight, it.inputWidth) }

    /** Each query twice, to warm up and to time: milliseconds by stage and in all, and bytes that it allocates. */
    private fun bench(localizer: Localizer, queries: List<Query>, onQuery: (Int, Int) -> Unit): Map<String, Any?> {
        val costs = ArrayList<Map<String, Any?>>()
        for (round in 0 until ROUNDS) {
            queries.forEachIndexed { i, query ->
                val before = Allocated.bytes
                val start = System.nanoTime()
                val frame = frame(localizer, query)
                val decoded = System.nanoTime()
                val between = Allocated.bytes
                val result = localizer.localize(frame, query.camera)
                val end = System.nanoTime()
                val after = Allocated.bytes
                onQuery(round * queries.size + i + 1, ROUNDS * queries.size)
                costs.add(
                    linkedMapOf(
                        "name" to query.name, "round" to round, "status" to result.status.name,
                        "milliseconds" to result.milliseconds, "decode_file" to (decoded - start) / 1e6,
                        "whole" to (end - start) / 1e6, "allocated" to after - between, "allocated_by_file" to between - before,
                    ),
                )
            }
        }
        return linkedMapOf("about" to about(), "queries" to costs)
    }

    private fun about() = linkedMapOf(
        "processor" to "CPU, TensorFlow Lite on the JVM",
        "machine" to MACHINES.getOrDefault(System.getProperty("os.arch"), System.getProperty("os.arch")),
        "java" to System.getProperty("java.version"),
        "opencv" to DesktopOpenCv.version,
    )

    private data class Read(val task: String, val threads: Int, val method: String, val queries: List<Query>)

    private fun read(): Read {
        val file = File(folder, "job.json")
        try {
            val fields = Json.read(file.readText()) as Map<*, *>
            val queries = (fields["queries"] as List<*>).map { row ->
                val (name, path, camera) = row as List<*>
                val values = camera as List<*>
                val params = DoubleArray(values.size - 3) { values[it + 3] as Double }
                val (model, width, height) = values
                val seen = Camera(model as String, (width as Double).toInt(), (height as Double).toInt(), params)
                Query(name as String, File(File(folder, "images"), path as String), seen)
            }
            val task = fields["task"] as String
            require(task == "record" || task == "bench") { "the task is $task" }
            return Read(task, (fields["threads"] as Double).toInt(), fields["method"] as String, queries)
        } catch (e: IOException) {
            throw InputException("cannot read $file: ${e.message}", "make it with hfnet-parity", e)
        } catch (e: InputException) {
            throw e
        } catch (e: RuntimeException) { // a field is missing, or of another kind
            throw InputException("$file is not a job (${e.message})", "make it with hfnet-parity", e)
        }
    }

    private companion object {
        const val ROUNDS = 4
        val MACHINES = mapOf("amd64" to "x86_64")
    }
}

/** Bytes that this thread has allocated so far. */
internal object Allocated {
    private val threads = java.lang.management.ManagementFactory.getThreadMXBean() as com.sun.management.ThreadMXBean

    val bytes: Long get() = threads.getThreadAllocatedBytes(Thread.currentThread().id)
}
