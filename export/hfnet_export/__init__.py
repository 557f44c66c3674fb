"""Networks, distillation and export to TFLite. Needs ``pip install hfnet-edge[export]``."""

import logging
import os

# Read by Keras and TensorFlow when they are imported, which the modules of this package do.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
logging.getLogger("tensorflow").setLevel(logging.ERROR)
