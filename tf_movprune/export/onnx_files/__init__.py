"""ONNX files: their conversion, operations and quantization."""
