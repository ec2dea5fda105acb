"""Prediction with a bundle: on the command line, over HTTP, as ONNX and as PyTorch."""
