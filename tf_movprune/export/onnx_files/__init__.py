"""What is inside ONNX files, and how they get it."""
