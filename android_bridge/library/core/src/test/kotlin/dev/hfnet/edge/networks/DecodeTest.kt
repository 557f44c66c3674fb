package dev.hfnet.edge.networks

import com.google.gson.JsonObject
import dev.hfnet.edge.Golden
import dev.hfnet.edge.image.Output
import dev.hfnet.edge.image.Photo
import javax.imageio.ImageIO
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.TestFactory

/** Golden cases of `decode`: from a network's outputs, recorded, to features, all at once. */
class DecodeTest {
    /** A frame that the network sees as the golden pixels, where these hold it: one has a rest made by hand. */
    private fun photo(name: String, given: JsonObject): Photo {
        val (inputHeight, inputWidth) = Golden.shape(given["pixels"])
        val pixels = Golden.bytes(given["pixels"])
        val (height, width) = Golden.ints(given["valid"]).toList()
        val (fullWidth, fullHeight) = Golden.ints(given["size"]).toList()
        val orientation = given["orientation"].asInt
        val photo = if (orientation == 1 && fullWidth == width && fullHeight == height) {
            Photo.of(pixels, height, width, inputWidth, inputHeight, inputWidth)
        } else if (orientation == 1 && fullWidth == 2 * width && fullHeight == 2 * height) {
            val twice = ByteArray(4 * width * height) { at ->
                pixels[at / fullWidth / 2 * inputWidth + at % fullWidth / 2]
            }
            Photo.of(twice, fullHeight, fullWidth, fullWidth, inputHeight, inputWidth)
        } else {
            val load = Golden.cases("load").single { it["name"].asString == name }.getAsJsonObject("given")
            val image = ImageIO.read(Golden.file(load["image"].asString))
            val grey = image.raster.getSamples(0, 0, image.width, image.height, 0, null as IntArray?)
            val bytes = ByteArray(grey.size) { grey[it].toByte() }
            val rotation = mapOf(1 to 0, 6 to 90).getValue(orientation)
            Photo.of(bytes, image.height, image.width, image.width, inputHeight, inputWidth, rotation)
        }
        for (y in 0 until height) {
            val row = y * inputWidth until y * inputWidth + width
            assertContentEquals(pixels.sliceArray(row), photo.pixels.sliceArray(row))
        }
        return photo
    }

    @TestFactory
    fun decode(): List<DynamicTest> {
        val cases = Golden.cases("decode")
        check(cases.isNotEmpty())
        return cases.map { case ->
            DynamicTest.dynamicTest(case["name"].asString) {
                compare(case["name"].asString, case.getAsJsonObject("given"), case.getAsJsonObject("expected"))
            }
        }
    }

    private fun compare(name: String, given: JsonObject, expected: JsonObject) {
        val photo = photo(name, given)
        val outputs = ROLES.filterValues { given.has(it) }.mapValues { (role, key) ->
            if (role != Role.GLOBAL) Golden.output(given[key]) else {
                Golden.floats(given[key]).let { Output.of(it, 1, 1, it.size) }
            }
        }
        val locals = Role.LOCAL_STRIDES.keys.sumOf { outputs[it]?.channels ?: 0 }
        val about = described(
            outputs.keys, photo.inputHeight, photo.inputWidth, locals, outputs.getValue(Role.GLOBAL).channels,
        )
        val runtime = RecordedRuntime.of(photo.inputHeight, photo.inputWidth, outputs)
        val network = network("recorded.tflite", about, runtime) as HFNet
        val found = network.look(photo.pixels) { raw ->
            Look.decode(
                raw, photo, given["radius"].asInt, given["count"].asInt, given["threshold"].asFloat, Description.BLOBS,
            ).own(locals)
        }
        assertContentEquals(Golden.doubles(expected["keypoints"]), found.keypoints)
        assertContentEquals(Golden.floats(expected["scores"]), found.scores)
        assertContentEquals(Golden.bytes(expected["descriptors"]), found.descriptors)
        assertContentEquals(Golden.bytes(expected["global_descriptor"]), found.globalDescriptor)
        assertEquals(expected["pixel"].asDouble, found.pixel)
    }

    private companion object {
        val ROLES = mapOf(
            Role.KEYPOINT_LOGITS to "logits", Role.LOCAL to "local", Role.LOCAL_QUARTER to "quarter",
            Role.LOCAL_HALF to "half", Role.GLOBAL to "global",
        )
    }
}
