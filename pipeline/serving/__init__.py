"""A bundle, opened to answer: on the command line, over HTTP, as ONNX and as PyTorch."""
