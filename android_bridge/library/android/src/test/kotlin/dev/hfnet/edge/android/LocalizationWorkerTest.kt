package dev.hfnet.edge.android

import dev.hfnet.edge.Frame
import java.nio.ByteBuffer
import java.util.concurrent.CountDownLatch
import java.util.concurrent.Executor
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.TimeUnit
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertNotEquals
import kotlin.test.assertTrue

class LocalizationWorkerTest {
    private val told = LinkedBlockingQueue<Any>()
    private val listener = object : LocalizationWorker.Listener<Any> {
        override fun onResult(result: Any) {
            told.add(result)
        }

        override fun onError(error: Throwable) {
            told.add(error)
        }
    }
    private val inPlace = Executor { it.run() }

    @Test
    fun framesThatComeMeanwhileAreDropped() {
        val begun = CountDownLatch(1)
        val goOn = CountDownLatch(1)
        LocalizationWorker(listener, inPlace).use { worker ->
            val work = LocalizationWorker.Work<Any> { frame ->
                begun.countDown()
                goOn.await()
                levels(frame)[0].toInt()
            }
            assertTrue(worker.offer(plane(1), work))
            begun.await()
            for (value in 2..4) assertFalse(worker.offer(plane(value), work))
            goOn.countDown()
            assertEquals(1, next())
            assertTrue(offerUntilTaken(worker, plane(5), work))
            assertEquals(5, next())
        }
        assertTrue(told.isEmpty())
    }

    @Test
    fun theImageMayBeClosedAtOnce() {
        val goOn = CountDownLatch(1)
        val pixels = ByteBuffer.allocateDirect(4)
        pixels.put(3, 9)
        LocalizationWorker(listener, inPlace).use { worker ->
            assertTrue(
                worker.offer(GreyPlane(pixels, 2, 2, 2, 90)) { frame ->
                    goOn.await()
                    listOf(levels(frame)[3].toInt(), frame.height, frame.width)
                },
            )
            pixels.put(3, 1)
            goOn.countDown()
            assertEquals(listOf(9, 2, 2), next())
        }
    }

    @Test
    fun itWorksOnItsOwnThreadAndTellsOnTheExecutor() {
        val tellers = LinkedBlockingQueue<Runnable>()
        LocalizationWorker(listener) { tellers.add(it) }.use { worker ->
            worker.offer(plane(1)) { Thread.currentThread() }
            val tell = tellers.poll(10, TimeUnit.SECONDS)!!
            assertTrue(told.isEmpty())
            tell.run()
            assertNotEquals<Any?>(Thread.currentThread(), next())
        }
    }

    @Test
    fun whatTheWorkThrowsIsToldAndItGoesOn() {
        LocalizationWorker(listener, inPlace).use { worker ->
            val error = IllegalStateException("no such frame")
            worker.offer(plane(1)) { throw error }
            assertEquals(error, next())
            assertTrue(offerUntilTaken(worker, plane(2)) { "fine" })
            assertEquals("fine", next())
        }
    }

    @Test
    fun closingWaitsForTheFrameAndTellsNothingMore() {
        val begun = CountDownLatch(1)
        var ended = false
        val worker = LocalizationWorker(listener, inPlace)
        worker.offer(plane(1)) {
            begun.countDown()
            Thread.sleep(100)
            ended = true
            "late"
        }
        begun.await()
        worker.close()
        assertTrue(ended)
        assertTrue(told.isEmpty())
        assertFalse(worker.offer(plane(2)) { "later" })
        worker.close()
    }

    @Test
    fun theListenerMayCloseIt() {
        var worker: LocalizationWorker<Any>? = null
        val closing = object : LocalizationWorker.Listener<Any> {
            override fun onResult(result: Any) {
                worker!!.close()
                told.add("closed")
            }

            override fun onError(error: Throwable) = throw error
        }
        worker = LocalizationWorker(closing, inPlace)
        worker.offer(plane(1)) { "found" }
        assertEquals("closed", next())
    }

    /** Core tells the pixels to its networks alone. */
    private fun levels(frame: Frame): ByteArray =
        Frame::class.java.getDeclaredField("grey").also { it.isAccessible = true }.get(frame) as ByteArray

    private fun next(): Any? = told.poll(10, TimeUnit.SECONDS)

    /** The worker is free a moment after its listener was told. */
    private fun offerUntilTaken(
        worker: LocalizationWorker<Any>,
        plane: GreyPlane,
        work: LocalizationWorker.Work<Any>,
    ): Boolean {
        val end = System.nanoTime() + TimeUnit.SECONDS.toNanos(10)
        while (!worker.offer(plane, work)) if (System.nanoTime() > end) return false
        return true
    }

    private fun plane(value: Int) = GreyPlane(ByteBuffer.wrap(byteArrayOf(value.toByte())), 1, 1, 1, 0)
}
