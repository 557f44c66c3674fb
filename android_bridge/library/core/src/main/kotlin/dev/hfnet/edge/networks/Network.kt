package dev.hfnet.edge.networks

import dev.hfnet.edge.ModelException
import dev.hfnet.edge.image.Keypoints
import dev.hfnet.edge.image.Output
import java.io.Closeable
import java.io.File
import java.io.IOException
import java.io.RandomAccessFile
import java.nio.ByteBuffer
import java.util.ArrayDeque
import java.util.concurrent.Semaphore

/**
 * A network: a .tflite file that carries its own description, and a runtime for it.
 *
 * Threads may share a network. A run has an interpreter to itself; there are as many as runs have been at once, but not
 * more than cores: further runs wait. They lie over one copy of the file.
 */
public abstract class Network internal constructor(
    file: ModelFile,
    private val runtime: Runtime,
    private val threads: Int,
    /** Images, patches or keypoints of a run. */
    public val batch: Int,
) : Closeable {
    /** The file's, for messages. */
    public val name: String = file.name

    /** What the file says of itself. */
    public val description: Description = file.description

    /** What runs the convolutions: "XNNPACK" or "builtin". */
    public val kernels: String

    /** Channels of the outputs whose number the description does not say, by role. */
    internal val widths: Map<String, Int>

    private val content = file.content
    private val slots = Semaphore(java.lang.Runtime.getRuntime().availableProcessors())
    private val idle = ArrayDeque<Ready>()
    private var closed = false

    init {
        if (threads !in 1..MAX_THREADS) {
            throw ModelException("$threads threads are not between 1 and $MAX_THREADS", "give the number of cores")
        }
        val first = open()
        kernels = first.interpreter.kernels
        widths = widths(first.interpreter)
        idle.push(first)
    }

    /**
     * Runs the network, and gives its outputs by role to [use]. They hold inside of it alone, where this network must
     * not be run again.
     *
     * @param pixels (batch, H, W) grey levels.
     * @return what [use] returns.
     * @throws ModelException the runtime fails.
     */
    public fun <R> run(pixels: ByteArray, use: (Map<String, Output>) -> R): R {
        val size = batch * description.inputHeight * description.inputWidth
        require(pixels.size == size) { "$name takes $size grey levels, not ${pixels.size}" }
        slots.acquireUninterruptibly()
        try {
            val one = take() ?: open()
            var right = false
            try {
                description.scale(pixels, one.input)
                val named = try {
                    one.interpreter.run(one.input)
                } catch (e: ModelException) {
                    throw ModelException("$name failed on an image: ${e.problem}", e.remedy, e)
                }
                right = true
                return use(description.outputs.mapValues { named.getValue(it.value) })
            } finally {
                if (!right || !putBack(one)) one.interpreter.close()
            }
        } finally {
            slots.release()
        }
    }

    /** Releases the interpreters, those that run now when they have run. The network cannot be run after it. */
    override fun close() {
        synchronized(idle) {
            closed = true
            while (idle.isNotEmpty()) idle.pop().interpreter.close()
        }
    }

    override fun toString(): String = name

    /** The one that ran last: its memory is warm. */
    private fun take(): Ready? = synchronized(idle) {
        check(!closed) { "$name is closed" }
        idle.poll()
    }

    private fun putBack(one: Ready): Boolean = synchronized(idle) {
        if (!closed) idle.push(one)
        !closed
    }

    private fun open(): Ready {
        val interpreter = try {
            runtime.open(content, batch, threads)
        } catch (e: ModelException) {
            throw ModelException("$name cannot be run: ${e.problem}", e.remedy, e)
        }
        try {
            check(interpreter)
        } catch (e: ModelException) {
            interpreter.close()
            throw e
        }
        return Ready(interpreter, FloatArray(batch * description.inputHeight * description.inputWidth))
    }

    private fun check(interpreter: Interpreter) {
        val h = description.inputHeight
        val w = description.inputWidth
        val given = interpreter.inputShape.toList()
        if (given != listOf(batch, h, w, 1)) {
            throw ModelException("$name takes $given, and says ${h}x$w of itself", Description.EXPORT_AGAIN)
        }
        val shapes = shapes(description, batch, widths(interpreter))
        for ((role, output) in description.outputs) {
            val shape = shapes.getValue(role)
            if (interpreter.outputShapes[output]?.toList() != shape || 0 in shape) {
                throw ModelException("$name: no output of shape $shape is its $role", Description.EXPORT_AGAIN)
            }
        }
    }

    private fun widths(interpreter: Interpreter): Map<String, Int> =
        description.outputs.filterKeys { it in Role.OWN_WIDTH }.mapValues {
            interpreter.outputShapes[it.value]?.lastOrNull() ?: 0
        }

    private class Ready(val interpreter: Interpreter, val input: FloatArray)

    public companion object {
        private const val MAX_THREADS = 64

        /**
         * Loads a network of whatever kind its description says.
         *
         * @param threads of one run.
         * @throws ModelException the file is missing, damaged, or no network.
         */
        @JvmStatic
        @JvmOverloads
        @Throws(ModelException::class)
        public fun open(file: File, runtime: Runtime, threads: Int = 2): Network =
            read(bytes(file), file.path, runtime, threads)

        /** As the other, of a file's content in a direct buffer, an asset's for example, that nobody writes to. */
        @JvmStatic
        @JvmOverloads
        @Throws(ModelException::class)
        public fun read(content: ByteBuffer, name: String, runtime: Runtime, threads: Int = 2): Network {
            val file = ModelFile(name, content, Description.read(content, name))
            return when (file.description.kind) {
                Kind.IMAGE -> HFNet(file, runtime, threads)
                Kind.PATCHES -> PatchNetwork(file, runtime, threads)
                Kind.SCENE -> SceneNetwork(file, runtime, threads)
                Kind.RETRIEVAL -> RetrievalNetwork(file, runtime, threads)
            }
        }

        private fun bytes(file: File): ByteBuffer {
            val problem = "cannot read the model $file"
            try {
                RandomAccessFile(file, "r").use { opened ->
                    val size = opened.length()
                    if (size > Int.MAX_VALUE) throw IOException("it has $size bytes")
                    val content = ByteBuffer.allocateDirect(size.toInt())
                    while (content.hasRemaining() && opened.channel.read(content) >= 0) Unit
                    content.flip()
                    return content
                }
            } catch (e: IOException) {
                throw ModelException("$problem: ${e.message}", "export one with `hfnet-export`", e)
            } catch (e: OutOfMemoryError) {
                throw ModelException("$problem: it has ${file.length()} bytes", "allow more memory", e)
            }
        }

        /** The shape of each role's output, also of those that the network lacks. */
        private fun shapes(d: Description, batch: Int, own: Map<String, Int>): Map<String, List<Int>> {
            val h = d.inputHeight
            val w = d.inputWidth
            val cells = listOf(batch, h / Keypoints.CELL, w / Keypoints.CELL)
            val finer = (own[Role.LOCAL_QUARTER] ?: 0) + (own[Role.LOCAL_HALF] ?: 0)
            val locals = own + (Role.LOCAL to maxOf(0, d.localDim - finer))
            return Role.LOCAL_STRIDES.mapValues { (role, n) -> listOf(batch, h / n, w / n, locals[role] ?: 0) } + mapOf(
                Role.KEYPOINT_LOGITS to cells + (Keypoints.CELL * Keypoints.CELL + 1),
                Role.KEYPOINT_SCORES to listOf(batch, h, w),
                Role.HYPERCOLUMNS to cells + (own[Role.HYPERCOLUMNS] ?: 0),
                Role.GLOBAL to listOf(batch, d.globalDim),
                Role.PATCH to listOf(batch, d.localDim),
                Role.SCENE to listOf(batch, own[Role.SCENE] ?: 0),
            )
        }
    }
}

/** A network's file that has been read and checked. */
internal class ModelFile(val name: String, val content: ByteBuffer, val description: Description)
