"""What the machine does, and what work costs on it."""
