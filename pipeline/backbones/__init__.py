"""Pretrained, frozen networks: the catalogue, the ONNX exports, and the engines that run them."""
