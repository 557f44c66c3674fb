package dev.hfnet.edge.android

import dev.hfnet.edge.Frame
import java.io.Closeable
import java.util.concurrent.Executor
import java.util.concurrent.Executors
import java.util.concurrent.RejectedExecutionException
import java.util.concurrent.TimeUnit
import java.util.concurrent.atomic.AtomicBoolean

/**
 * Localizes beside the camera's thread, one frame at a time. Frames that come while one is being localized are dropped,
 * so that the next one is fresh.
 *
 * ```
 * val worker = LocalizationWorker(listener, mainExecutor)
 * worker.offer(plane) { frame -> session.localize(frame, camera, seconds, devicePose) }   // on the camera's thread
 * ```
 *
 * @param R what comes of a frame.
 * @param listener is told what came of frames.
 * @param executor where the listener is called, the main thread's for example; it
 *   outlives the worker.
 */
public class LocalizationWorker<R>(private val listener: Listener<R>, private val executor: Executor) : Closeable {
    /** What is done with a frame, on the worker's thread. */
    public fun interface Work<out R> {
        /** Localizes [frame], the worker's copy, which changes after this. What it throws goes to the listener. */
        public fun localize(frame: Frame): R
    }

    /** Is told what came of each frame that was taken; nothing after the worker was closed. */
    public interface Listener<in R> {
        /** The work returned. */
        public fun onResult(result: R)

        /** The work threw: a `HFNetEdgeException` where the input was wrong. The worker goes on. */
        public fun onError(error: Throwable)
    }

    private val busy = AtomicBoolean()
    private var memory = ByteArray(0)

    @Volatile
    private var thread: Thread? = null
    private val queue = Executors.newSingleThreadExecutor { run -> Thread(run, "hfnet-localize").also { thread = it } }

    /**
     * Takes a frame if none is being localized. Its pixels are copied, so the image may be closed when this returns, at
     * once.
     *
     * @return whether it was taken.
     */
    public fun offer(plane: GreyPlane, work: Work<R>): Boolean {
        if (queue.isShutdown || !busy.compareAndSet(false, true)) return false
        var taken = false
        try {
            memory = plane.copy(memory)
            val frame = plane.frameOf(memory)
            queue.execute { localize(frame, work) }
            taken = true
        } catch (_: RejectedExecutionException) { // closed meanwhile
        } finally {
            if (!taken) busy.set(false)
        }
        return taken
    }

    private fun localize(frame: Frame, work: Work<R>) {
        val tell = try {
            val result = work.localize(frame)
            Runnable { listener.onResult(result) }
        } catch (e: Throwable) {
            Runnable { listener.onError(e) }
        }
        busy.set(false)
        executor.execute { if (!queue.isShutdown) tell.run() }
    }

    /** Waits for the frame that is being localized, if there is one; the localizer may be closed then. */
    override fun close() {
        queue.shutdown()
        if (Thread.currentThread() === thread) return // the listener closes it, on an executor that runs in place
        try {
            queue.awaitTermination(Long.MAX_VALUE, TimeUnit.NANOSECONDS)
        } catch (_: InterruptedException) {
            Thread.currentThread().interrupt()
        }
    }
}
