package dev.hfnet.edge.prior

/** A name's pattern as in a shell: `*`, `?`, `[seq]` and `[!seq]`, of which all may stand for a slash. Case counts. */
internal class ShellPattern(pattern: String) {
    private val parts = ArrayList<Part>()

    init {
        val p = points(pattern)
        var i = 0
        while (i < p.size) {
            val end = if (p[i] == '['.code) endOfSet(p, i) else -1
            if (end > 0) {
                val negated = p[i + 1] == '!'.code
                parts.add(Part(ranges(p, i + (if (negated) 2 else 1), end), negated))
                i = end
            } else {
                parts.add(
                    when (p[i]) {
                        '*'.code -> STAR
                        '?'.code -> Part(emptyList(), true)
                        else -> Part(listOf(p[i]..p[i]), false)
                    },
                )
            }
            i++
        }
    }

    /** Whether all of a name fits. */
    fun matches(name: String): Boolean {
        val n = points(name)
        var i = 0
        var part = 0
        var star = -1 // the last one, and where what follows it was looked for
        var from = 0
        while (i < n.size) {
            if (part < parts.size && parts[part] === STAR) {
                star = part++
                from = i
            } else if (part < parts.size && parts[part].fits(n[i])) {
                part++
                i++
            } else if (star >= 0) {
                part = star + 1
                i = ++from
            } else {
                return false
            }
        }
        while (part < parts.size && parts[part] === STAR) part++
        return part == parts.size
    }

    /** One character: of the ranges, or of none of them. */
    private class Part(private val ranges: List<IntRange>, private val negated: Boolean) {
        fun fits(point: Int) = ranges.any { point in it } != negated
    }

    private companion object {
        val STAR = Part(emptyList(), false)

        fun points(text: String): IntArray {
            val out = ArrayList<Int>()
            var i = 0
            while (i < text.length) {
                val point = text.codePointAt(i)
                out.add(point)
                i += Character.charCount(point)
            }
            return out.toIntArray()
        }

        /** Where the set that begins at [start] ends; -1: it does not, and is a bracket. */
        fun endOfSet(p: IntArray, start: Int): Int {
            var end = start + 1
            if (end < p.size && p[end] == '!'.code) end++
            if (end < p.size && p[end] == ']'.code) end++
            while (end < p.size && p[end] != ']'.code) end++
            return if (end < p.size) end else -1
        }

        fun ranges(p: IntArray, start: Int, end: Int): List<IntRange> {
            val out = ArrayList<IntRange>()
            var i = start
            while (i < end) {
                if (i + 2 < end && p[i + 1] == '-'.code) {
                    out.add(p[i]..p[i + 2])
                    i += 3
                } else {
                    out.add(p[i]..p[i])
                    i++
                }
            }
            return out
        }
    }
}
