package dev.hfnet.edge.android

import dev.hfnet.edge.ModelException
import java.nio.ByteBuffer
import kotlin.test.BeforeTest
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Delegate

/** The native library is Android's alone and cannot be run here; how its classes are used is tested on a stand-in. */
@RunWith(RobolectricTestRunner::class)
@Config(
    shadows = [ShadowInterpreter::class, ShadowInterpreterImpl::class],
    instrumentedPackages = ["org.tensorflow.lite"],
)
class LiteRtRuntimeTest {
    private val model = ByteBuffer.allocateDirect(8)

    @BeforeTest
    fun afresh() { // whatever ran before
        ShadowInterpreter.doubled = DataType.INT8
    }

    @Test
    fun outputsAreByNameWithTheirScale() {
        LiteRtRuntime().open(model, 1, 3).use { interpreter ->
            assertContentEquals(intArrayOf(1, 2, 2, 1), interpreter.inputShape)
            assertEquals(setOf("mean", "doubled"), interpreter.outputShapes.keys)
            for (first in 1..2) { // buffers are used again
                val outputs = interpreter.run(floatArrayOf(first.toFloat(), 2f, 3f, 4f))
                assertContentEquals(floatArrayOf((first + 9) / 4f), outputs.getValue("mean").floats)
                val doubled = outputs.getValue("doubled")
                assertContentEquals(floatArrayOf(first.toFloat(), 2f, 3f, 4f), doubled.toFloats())
                assertEquals(listOf(1, 2, 2, 1), interpreter.outputShapes.getValue("doubled").toList())
            }
        }
        assertTrue(ShadowInterpreter.last.isClosed)
    }

    @Test
    fun theBatchIsWhatWasAskedFor() {
        LiteRtRuntime().open(model, 3, 1).use { interpreter ->
            assertContentEquals(intArrayOf(3, 2, 2, 1), interpreter.inputShape)
            val outputs = interpreter.run(FloatArray(12) { it.toFloat() })
            assertContentEquals(floatArrayOf(1.5f, 5.5f, 9.5f), outputs.getValue("mean").floats)
        }
    }

    @Test
    fun threadsAndXnnpackAreAskedFor() {
        LiteRtRuntime().open(model, 1, 3).use { interpreter ->
            assertEquals("XNNPACK", interpreter.kernels)
            assertEquals(3, ShadowInterpreter.opened.numThreads)
            assertTrue(ShadowInterpreter.opened.useXNNPACK)
            assertTrue(ShadowInterpreter.opened.delegates.isEmpty())
        }
    }

    @Test
    fun eachInterpreterHasADelegateOfItsOwnAndClosesIt() {
        val made = ArrayList<Gpu>()
        val runtime = LiteRtRuntime { Gpu().also { made.add(it) } }
        runtime.open(model, 1, 1).use { first ->
            assertEquals("Gpu, XNNPACK", first.kernels)
            assertEquals<List<Delegate>>(made, ShadowInterpreter.opened.delegates)
            runtime.open(model, 1, 1).close()
            assertEquals(listOf(0, 1), made.map { it.closed })
        }
        assertEquals(listOf(1, 1), made.map { it.closed })
        assertFailsWith<ModelException> { runtime.open(ByteBuffer.allocateDirect(0), 1, 1) }
        assertEquals(1, made.last().closed)
    }

    @Test
    fun whatLiteRtRefusesIsAModelException() {
        val e = assertFailsWith<ModelException> { LiteRtRuntime().open(ByteBuffer.allocateDirect(0), 1, 1) }
        assertContains(e.problem, "not a valid TensorFlow Lite model")
        ShadowInterpreter.doubled = DataType.UINT8
        assertContains(assertFailsWith<ModelException> { LiteRtRuntime().open(model, 1, 1) }.problem, "doubled")
        assertTrue(ShadowInterpreter.last.isClosed)
    }

    @Test
    fun aRunThatFailsIsAModelException() {
        LiteRtRuntime().open(model, 1, 1).use { interpreter ->
            val e = assertFailsWith<ModelException> { interpreter.run(FloatArray(4) { Float.NaN }) }
            assertContains(e.problem, "node number 3")
        }
    }

    private class Gpu : Delegate {
        var closed = 0

        override fun getNativeHandle() = 1L

        override fun close() {
            closed++
        }
    }
}

/** Without a stand-in. */
class NoNativeLibraryTest {
    @Test
    fun whereTheNativeLibraryIsMissingItSaysSo() {
        val e = assertFailsWith<ModelException> { LiteRtRuntime().open(ByteBuffer.allocateDirect(8), 1, 1) }
        assertContains(e.problem, "native library")
    }
}
