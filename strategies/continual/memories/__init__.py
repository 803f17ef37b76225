"""What is kept of the past, in how many bytes."""
