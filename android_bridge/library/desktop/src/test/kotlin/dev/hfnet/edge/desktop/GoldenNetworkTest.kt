package dev.hfnet.edge.desktop

import com.google.gson.JsonObject
import com.google.gson.JsonParser
import dev.hfnet.edge.image.Output
import dev.hfnet.edge.networks.HFNet
import dev.hfnet.edge.networks.Network
import dev.hfnet.edge.networks.Role
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import kotlin.math.abs
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue
import org.junit.jupiter.api.Assumptions.assumeTrue

/** Golden cases of `network`, of a network that the tests do not have: `golden/README.md` says how it is exported. */
class GoldenNetworkTest {
    private val folder = File(System.getProperty("hfnet.root"), "golden")
    private val manifest = JsonParser.parseString(File(folder, "manifest.json").readText()).asJsonObject

    @Test
    fun `outputs are those of the golden vectors`() {
        val path = System.getenv("HFNET_GOLDEN_NETWORK")
        assumeTrue(path != null, "HFNET_GOLDEN_NETWORK names no file of `hfnet-export`, see golden/README.md")
        val all = manifest.getAsJsonArray("cases").map { it.asJsonObject }
        val cases = all.filter { it["stage"].asString == "network" }
        assertTrue(cases.isNotEmpty())
        val sum = MessageDigest.getInstance("SHA-256").digest(File(path!!).readBytes())
        val same = sum.joinToString("") { "%02x".format(it) } == manifest.getAsJsonObject("network")["sha256"].asString
        (Network.open(File(path), DesktopRuntime()) as HFNet).use { network ->
            assertEquals(
                manifest.getAsJsonObject("network")["weights_hash"].asString, network.description.weightsHash,
            )
            for (case in cases) {
                val pixels = File(folder, case.getAsJsonObject("given")["pixels"].asString).readBytes()
                network.run(pixels) { outputs ->
                    for ((short, file) in case.getAsJsonObject("expected").entrySet()) {
                        val exact = same && network.kernels == "XNNPACK" && short != "global" // float, by processor
                        val what = "${case["name"].asString}: $short"
                        compare(what, outputs.getValue(ROLES.getValue(short)), file.asString, exact)
                    }
                }
            }
        }
    }

    private fun compare(what: String, found: Output, file: String, same: Boolean) {
        val steps = if (same) 0 else manifest.getAsJsonObject("tolerances").getAsJsonObject("network")["steps"].asInt
        val about: JsonObject = manifest.getAsJsonObject("arrays").getAsJsonObject(file)
        val bytes = File(folder, file).readBytes()
        val data = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
        val int8 = about.has("scale")
        val scale = if (int8) about["scale"].asFloat else 1f / 127
        for (i in 0 until found.size) {
            val said = if (int8) (bytes[i] - about["zero_point"].asInt) * scale else data.getFloat(4 * i)
            assertTrue(abs(found[i] - said) <= steps * scale * 1.0001f, "$what: ${found[i]}, not $said, at $i")
        }
    }

    private companion object {
        val ROLES = mapOf(
            "logits" to Role.KEYPOINT_LOGITS, "local" to Role.LOCAL, "quarter" to Role.LOCAL_QUARTER,
            "half" to Role.LOCAL_HALF, "global" to Role.GLOBAL, "hypercolumns" to Role.HYPERCOLUMNS,
        )
    }
}
