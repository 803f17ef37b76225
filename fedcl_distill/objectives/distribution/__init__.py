"""Distribution matching: the real and the synthetic samples must look alike to a network."""
