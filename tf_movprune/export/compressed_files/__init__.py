"""What is inside compressed files, and how it is read from anybody."""
