"""Keras started without the lines that TensorFlow writes before it can be told not to: in JupyterLab they make a red box."""

import os
import re
import sys
import tempfile

KNOWN = re.compile(
    r"before absl::InitializeLog|cudart_stub\.cc|cuda_platform\.cc.*cuInit|cpu_feature_guard|oneDNN custom operations"
)
"""What is left out: that there is no GPU, which is said elsewhere (`keras.distribution.list_devices`), and which processor."""


def start_keras() -> None:
    """Import Keras and let its backend look for devices; anything else that is written meanwhile is shown afterwards."""
    if "keras" in sys.modules:
        return
    before = os.dup(2)
    with tempfile.TemporaryFile("w+") as said:
        os.dup2(said.fileno(), 2)
        try:
            import keras

            if keras.backend.backend() != "numpy":  # which has no devices
                keras.distribution.list_devices()
        finally:
            os.dup2(before, 2)
            os.close(before)
            said.seek(0)
            sys.stderr.write("".join(line for line in said if line.strip() and not KNOWN.search(line)))
