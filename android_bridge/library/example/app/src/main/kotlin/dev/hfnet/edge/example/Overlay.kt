package dev.hfnet.edge.example

import android.content.Context
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Paint
import android.view.View
import kotlin.math.max

/** Landmarks over a preview that fills the view from its middle. */
class Overlay(context: Context) : View(context) {
    private val dots = Paint().apply {
        color = Color.GREEN
        strokeWidth = 6f
        strokeCap = Paint.Cap.ROUND
    }
    private val words = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        color = Color.WHITE
        textSize = 40f
        setShadowLayer(4f, 0f, 0f, Color.BLACK)
    }
    private var sight: Sight? = null
    private var text = "opening the map"

    fun show(sight: Sight) {
        this.sight = sight
        show(sight.text)
    }

    fun show(text: String) {
        this.text = text
        invalidate()
    }

    override fun onDraw(canvas: Canvas) {
        sight?.let { seen ->
            val scale = max(width.toFloat() / seen.width, height.toFloat() / seen.height)
            canvas.save()
            canvas.translate((width - scale * seen.width) / 2, (height - scale * seen.height) / 2)
            canvas.drawPoints(FloatArray(seen.points.size) { scale * seen.points[it] }, dots)
            canvas.restore()
        }
        canvas.drawText(text, 32f, height - 48f, words)
    }
}
