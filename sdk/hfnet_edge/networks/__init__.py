"""Networks on the device: a .tflite file, what it says of itself, and how it is run."""
