package dev.hfnet.edge.desktop

import java.io.File
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue
import org.junit.jupiter.api.Assumptions.assumeTrue

/** Real networks on real images give the bits that Python's interpreter gives on the same machine. */
class RecordedTest {
    @Test
    fun `the same bits as Python's interpreter, by one thread and by two`() {
        val folder = System.getenv("HFNET_RECORDED")
        assumeTrue(folder != null, "HFNET_RECORDED names no folder of `python benchmarks/jvm_network.py --keep FOLDER`")
        for (threads in 1..2) {
            val found = Recorded(File(folder!!)).compare(threads)
            assertTrue(found.isNotEmpty() && found.all { it.values > 0 })
            for (one in found) assertEquals(0, one.differing, "${one.network}, ${one.role}, $threads threads")
        }
    }
}
