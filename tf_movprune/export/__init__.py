"""Files to ship: SavedModel, TFLite and compressed weights."""
