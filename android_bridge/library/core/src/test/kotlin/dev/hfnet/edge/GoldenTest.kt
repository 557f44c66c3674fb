package dev.hfnet.edge

import com.google.gson.JsonObject
import dev.hfnet.edge.image.Blobs
import dev.hfnet.edge.image.Keypoints
import dev.hfnet.edge.image.Photo
import dev.hfnet.edge.image.Points
import dev.hfnet.edge.map.Calibration
import dev.hfnet.edge.map.Described
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.map.RandomTrees
import dev.hfnet.edge.map.SceneTree
import dev.hfnet.edge.map.TreeOrder
import dev.hfnet.edge.search.Covisibility
import dev.hfnet.edge.search.DenseSearch
import dev.hfnet.edge.search.Matching
import dev.hfnet.edge.search.ParallelSearch
import dev.hfnet.edge.search.Retrieval
import dev.hfnet.edge.trust.Judge
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.TestFactory

/** The stages against the golden vectors, each from the golden result of the stage before: the same integers. */
class GoldenTest {
    private val maps = HashMap<String, LocalizationMap>()

    private fun map(given: JsonObject) =
        maps.getOrPut(given["map"].asString) { LocalizationMap.open(Golden.file(given["map"].asString)) }

    private fun each(stage: String, compare: (JsonObject, JsonObject) -> Unit): List<DynamicTest> {
        val cases = Golden.cases(stage)
        check(cases.isNotEmpty()) { "there are no cases of $stage" }
        return cases.map { case ->
            DynamicTest.dynamicTest("$stage: ${case["name"].asString}") {
                compare(case.getAsJsonObject("given"), case.getAsJsonObject("expected"))
            }
        }
    }

    @TestFactory
    fun load() = each("load") { given, expected ->
        val image = StoredImage.read(Golden.file(given["image"].asString))
        val (inputHeight, inputWidth) = Golden.ints(given["input_size"]).toList()
        val camera = given["camera"].takeUnless { it.isJsonNull }?.let { Camera.parse(it.asString) }
        val photo = Photo.ofFile(
            image.grey, image.height, image.width, image.width, inputHeight, inputWidth, image.orientation, camera,
        )
        assertContentEquals(Golden.ints(expected["valid"]), intArrayOf(photo.validHeight, photo.validWidth))
        assertContentEquals(Golden.ints(expected["size"]), intArrayOf(photo.width, photo.height))
        assertEquals(expected["orientation"].asInt, photo.orientation)
        assertContentEquals(Golden.bytes(expected["pixels"]), photo.pixels)
        val points = given.getAsJsonArray("xy").map { it.asJsonArray }
        for ((point, said) in points.zip(expected.getAsJsonArray("camera_xy").map { it.asJsonArray })) {
            val found = photo.toCamera(point[0].asDouble, point[1].asDouble)
            assertContentEquals(doubleArrayOf(said[0].asDouble, said[1].asDouble), found)
        }
    }

    @TestFactory
    fun scores() = each("scores") { given, expected ->
        val scores = Keypoints.scores(Golden.output(given["logits"]))
        val bytes = ByteBuffer.allocate(4 * scores.size).order(ByteOrder.LITTLE_ENDIAN)
        scores.forEach { bytes.putFloat(it) }
        val digest = MessageDigest.getInstance("SHA-256").digest(bytes.array())
        assertEquals(expected["sha256"].asString, digest.joinToString("") { "%02x".format(it) })
    }

    @TestFactory
    fun keypoints() = each("keypoints") { given, expected ->
        val (height, width) = Golden.ints(given["valid"]).toList()
        val columns = Golden.shape(given["scores"])[1]
        val found = Keypoints.detect(
            Golden.floats(given["scores"]), columns, height, width, given["count"].asInt, given["radius"].asInt,
            given["threshold"].asFloat, given["border"].asInt,
        )
        assertContentEquals(Golden.floats(expected["xy"]), found.xy)
        assertContentEquals(Golden.floats(expected["scores"]), found.scores)
    }

    @TestFactory
    fun blobs() = each("blobs") { given, expected ->
        val (height, width) = Golden.ints(given["valid"]).toList()
        val columns = Golden.shape(given["pixels"])[1]
        val found = Blobs.find(Golden.bytes(given["pixels"]), columns, height, width, given["count"].asInt)
        assertContentEquals(Golden.floats(expected["response"]), found.response)
        assertContentEquals(Golden.floats(expected["xy"]), found.xy)
        assertContentEquals(Golden.floats(expected["scale"]), found.scale)
    }

    @TestFactory
    fun filled() = each("filled") { given, expected ->
        val response = Golden.floats(given["response"])
        val blobs = Blobs(Golden.floats(given["xy"]), response, FloatArray(response.size))
        val keypoints = Points(Golden.floats(given["network_xy"]), Golden.floats(given["network_scores"]))
        val found = Blobs.combine(blobs, keypoints, given["count"].asInt)
        assertContentEquals(Golden.floats(expected["xy"]), found.xy)
        assertContentEquals(Golden.floats(expected["scores"]), found.scores)
    }

    @TestFactory
    fun descriptors() = each("descriptors") { given, expected ->
        val maps = listOf("local", "quarter", "half").filter { given.has(it) }.map { Golden.output(given[it]) }
        val found = Keypoints.descriptors(maps, Golden.floats(given["xy"]))
        assertContentEquals(Golden.bytes(expected["descriptors"]), found)
    }

    @TestFactory
    fun global() = each("global") { given, expected ->
        val vector = Golden.floats(given["global"])
        assertContentEquals(Golden.bytes(expected["global_descriptor"]), Keypoints.quantize(vector, vector.size))
    }

    @TestFactory
    fun retrieval() = each("retrieval") { given, expected ->
        val count = given["count"].asInt
        val (query, references) = if (given.has("map")) {
            val map = map(given)
            val compared = map.globalCompared(Golden.bytes(given["global_descriptor"]))
            if (expected.has("compared")) assertContentEquals(Golden.bytes(expected["compared"]), compared)
            compared to map.globalDescriptors
        } else {
            Golden.bytes(given["query"]) to Golden.bytes(given["references"])
        }
        assertContentEquals(Golden.ints(expected["similarities"]), Retrieval.similarities(query, references))
        assertContentEquals(Golden.ints(expected["ranking"]), Retrieval.retrieve(query, references, count))
    }

    @TestFactory
    fun places() = each("places") { given, expected ->
        val found = Covisibility.cluster(map(given), Golden.ints(given["ranking"]))
        val said = expected.getAsJsonArray("places").map { it.asJsonObject }
        assertEquals(said.size, found.size)
        for ((place, other) in found.zip(said)) {
            assertContentEquals(Golden.ints(other["images"]), place.images)
            assertContentEquals(Golden.ints(other["landmarks"]), place.landmarks)
        }
    }

    @TestFactory
    fun compared() = each("compared") { given, expected ->
        val compared = map(given).codec.compared(Golden.bytes(given["descriptors"]))
        assertContentEquals(Golden.bytes(expected["compared"]), compared)
    }

    @TestFactory
    fun cells() = each("cells") { given, expected ->
        val (height, width) = Golden.ints(given["valid"]).toList()
        val found = DenseSearch.cells(Golden.output(given["hypercolumns"]), height, width)
        assertContentEquals(Golden.bytes(expected["cells"]), found)
    }

    @TestFactory
    fun denseSearch() = each("dense_search") { given, expected ->
        val (h, w) = Golden.shape(given["cells"])
        val found = DenseSearch.search(Golden.bytes(given["cells"]), h, w, Golden.bytes(given["landmarks"]))
        assertContentEquals(Golden.ints(expected["rows"]), found.rows)
        assertContentEquals(Golden.doubles(expected["xy"]), found.xy)
    }

    private fun numbers(value: JsonObject) = value.entrySet().associate { it.key to it.value.asDouble }

    @TestFactory
    fun probability() = each("probability") { given, expected ->
        val evidence = numbers(given.getAsJsonObject("evidence"))
        val inTolerance = numbers(given.getAsJsonObject("in_tolerance"))
        val c = Golden.ints(given["calibration"])
        val calibration = Calibration(c[0], c[1], c[2], c[3], c[4].toLong())
        assertEquals(expected["right"].asInt, Judge.bundled.rightPoints(evidence, calibration))
        assertEquals(expected["precise"].asInt, Judge.bundled.precisePoints(evidence, inTolerance, calibration))
        val found = Judge.bundled.decide(
            evidence, inTolerance, given["held"].asBoolean, given["max_wrong"].asDouble, calibration,
        )
        assertEquals(expected["probability"].asDouble, found.probability, 1e-9)
        assertEquals(expected["wrong"].asDouble, found.wrong, 1e-9)
        assertEquals(expected["accepted"].asBoolean, found.accepted)
        assertEquals(expected["ambiguous"].asBoolean, found.ambiguous)
    }

    @TestFactory
    fun sceneRows() = each("scene_rows") { given, expected ->
        val image = given["image"].takeUnless { it.isJsonNull }?.asInt
        val dim = Golden.shape(given["descriptors"])[1]
        val found = SceneTree.rows(Golden.bytes(given["descriptors"]), dim, image)
        assertContentEquals(Golden.bytes(expected["rows"]), found)
    }

    @TestFactory
    fun sceneLandmarks() = each("scene_landmarks") { given, expected ->
        val tree = SceneTree(Golden.ints(given["branches"]), Golden.ints(given["leaves"]), "")
        val found = tree.landmarksOf(Golden.floats(given["predicted"]))
        assertContentEquals(Golden.ints(expected["landmarks"]), found)
    }

    @TestFactory
    fun leaves() = each("leaves") { given, expected ->
        val order = TreeOrder.valueOf(given["order"].asString.uppercase())
        val dims = Golden.shape(given["descriptors"])[1]
        val trees = RandomTrees.of(map(given))
        val found = trees.priorLeaves(Golden.bytes(given["descriptors"]), dims, given["count"].asInt, order)
        assertContentEquals(Golden.ints(expected["leaves"]), found)
    }

    @TestFactory
    fun leafLandmarks() = each("leaf_landmarks") { given, expected ->
        val count = Golden.shape(given["leaves"])[1]
        val found = RandomTrees.of(map(given)).landmarks(Golden.ints(given["leaves"]), count)
        val rows = found.flatMapIndexed { row, landmarks -> landmarks.map { row } }
        val said = Golden.ints(expected["pairs"])
        assertContentEquals(said, (rows + found.flatMap { it.asIterable() }).toIntArray())
    }

    @TestFactory
    fun search() = each("search") { given, expected ->
        val map = map(given)
        val descriptors = Golden.bytes(given["descriptors"])
        val n = Golden.shape(given["descriptors"])[0]
        val pairs = Golden.ints(given["pairs"])
        val half = pairs.size / 2
        val own = (0 until n).map { row ->
            (0 until half).filter { pairs[it] == row }.map { pairs[half + it] }.toIntArray()
        }
        val shared = ParallelSearch.seenBy(map, Golden.ints(given["frames"]))
        assertContentEquals(Golden.ints(expected["shared"]), shared)
        val found = ParallelSearch.search(map, descriptors, shared, own)
        assertContentEquals(Golden.ints(expected["matches"]), found.keypoints + found.landmarks)
    }

    @TestFactory
    fun nearest() = each("nearest") { given, expected ->
        val queries: ByteArray
        val references: Described
        if (given.has("map")) {
            val map = map(given)
            queries = map.codec.compared(Golden.bytes(given["descriptors"]))
            references = map.descriptors(Golden.ints(given["landmarks"]))
        } else {
            queries = Golden.bytes(given["queries"])
            val rows = Golden.bytes(given["references"])
            val dim = Golden.shape(given["references"])[1]
            references = Described(rows, IntArray(rows.size / dim) { it }, dim)
        }
        val found = Matching.nearestTwo(queries, references)
        val said = Golden.ints(expected["nearest"])
        assertContentEquals(said, found.first + found.second + found.firstDistance + found.secondDistance)
    }

    @TestFactory
    fun matches() = each("matches") { given, expected ->
        val map = map(given)
        val found = Matching.match(map, Golden.bytes(given["descriptors"]), Golden.ints(given["landmarks"]))
        val said = Golden.ints(expected["matches"])
        assertContentEquals(said, found.keypoints + found.landmarks)
        val xyz = found.landmarks.flatMap { map.position(it).asIterable() }
        assertContentEquals(Golden.doubles(expected["xyz"]), xyz.toDoubleArray())
    }
}
