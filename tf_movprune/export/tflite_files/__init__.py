"""TFLite files: their conversion, quantization, sparse storage, names and metadata."""
