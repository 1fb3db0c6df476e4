"""What is inside TFLite files, and how they get it."""
