"""Files to ship: SavedModel, TFLite, ONNX and compressed weights."""
