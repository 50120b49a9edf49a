"""Training: jobs, the loop, checkpoints, and the life of a run folder."""
