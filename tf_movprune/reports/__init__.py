"""Records of runs, and pages and model cards that are made of them."""
