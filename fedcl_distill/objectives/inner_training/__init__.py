"""Training on the synthetic samples as a function of them: what trajectories and unrolled training share."""
