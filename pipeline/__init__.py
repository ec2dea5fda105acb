"""The stages of Headstart, which read and write files; orchestration is elsewhere."""

import os

__version__ = "0.3.0"

# Turns off the telemetry of ONNX Runtime, which reads the variable when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
