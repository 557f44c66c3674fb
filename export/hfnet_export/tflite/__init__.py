"""From a network to a .tflite that is quantized and checked."""
