package dev.hfnet.edge.trust

/** Reads the JSON of the bundled tables: objects, lists, numbers, texts without escapes. */
internal class Json(private val text: String) {
    private var at = 0

    /** The whole text: maps, lists, doubles and strings. Throws IllegalStateException. */
    fun read(): Any = value().also { check(next() == END) { "something follows at $at" } }

    private fun value(): Any = when (next()) {
        '{' -> {
            val found = LinkedHashMap<String, Any>()
            each('}') {
                val name = string()
                expect(':')
                found[name] = value()
            }
            found
        }
        '[' -> ArrayList<Any>().also { found -> each(']') { found.add(value()) } }
        '"' -> string()
        else -> {
            val begin = at
            while (at < text.length && (text[at].isLetterOrDigit() || text[at] in "+-.")) at++
            text.substring(begin, at).toDouble()
        }
    }

    private fun each(end: Char, one: () -> Unit) {
        at++
        while (next() != end) {
            one()
            if (next() != end) expect(',')
        }
        at++
    }

    private fun string(): String {
        expect('"')
        val begin = at
        at = text.indexOf('"', begin)
        check(at >= 0) { "a text does not end" }
        return text.substring(begin, at++)
    }

    private fun expect(character: Char) {
        check(next() == character) { "no $character at $at" }
        at++
    }

    private fun next(): Char {
        while (at < text.length && text[at].isWhitespace()) at++
        return if (at < text.length) text[at] else END
    }

    private companion object {
        const val END = '\u0000'
    }
}
