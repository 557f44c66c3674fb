package dev.hfnet.edge

import dev.hfnet.edge.map.ByteArraySource
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.map.PlaceIndex
import java.io.DataInputStream
import java.io.EOFException

/**
 * Reads maps from stdin, each after its length (4 bytes, big-endian), checks each whole, and prints a line: "ok", or the
 * exception's class. What is not an [HFNetEdgeException] is printed as it is: a reader must not throw anything else.
 */
fun main() {
    val input = DataInputStream(System.`in`.buffered())
    val out = StringBuilder()
    while (true) {
        val length = try {
            input.readInt()
        } catch (e: EOFException) {
            break
        }
        val content = ByteArray(length).also { input.readFully(it) }
        val verdict = try {
            val map = LocalizationMap.read(ByteArraySource(content)).also { it.checkAll() }
            if (PlaceIndex.isIndex(map)) PlaceIndex.of(map)
            "ok"
        } catch (e: Throwable) {
            e.javaClass.simpleName
        }
        out.append(verdict).append('\n')
    }
    print(out)
}
