"""Tasks: their data, features, metrics and batches, which know no Keras."""
