"""Checkpoints of PyTorch, read and written without torch."""
