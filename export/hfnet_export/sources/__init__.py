"""Networks of others: Keras files, SavedModels and ONNX files."""
