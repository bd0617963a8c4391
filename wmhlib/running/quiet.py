"""Start Keras without TensorFlow's first log lines, which cannot be disabled and appear as a red box in JupyterLab."""

import os
import re
import sys
import tempfile

KNOWN = re.compile(
    r"before absl::InitializeLog|cudart_stub\.cc|cuda_platform\.cc.*cuInit|cpu_feature_guard|oneDNN custom operations"
)
"""Lines that are removed: on a missing GPU (devices are listed by `keras.distribution.list_devices`) and on the
processor."""


def start_keras() -> None:
    """Import Keras and initialise its devices; all other output in the meantime is shown afterwards."""
    if "keras" in sys.modules:
        return
    before = os.dup(2)
    with tempfile.TemporaryFile("w+") as captured:
        os.dup2(captured.fileno(), 2)
        try:
            import keras

            if keras.backend.backend() != "numpy":  # the NumPy backend has no devices
                keras.distribution.list_devices()
        finally:
            os.dup2(before, 2)
            os.close(before)
            captured.seek(0)
            sys.stderr.write("".join(line for line in captured if line.strip() and not KNOWN.search(line)))
