"""The work of Headstart, stage by stage: files in, files out; no orchestration."""

import os

# ONNX Runtime would send what it runs to its makers; it reads this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
