"""Compressed files: their weights, table and checksum, read with no trust in who wrote them."""
