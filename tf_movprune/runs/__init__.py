"""Runs: fine-tuning a model on a task while it is pruned, and what is done with the result."""
