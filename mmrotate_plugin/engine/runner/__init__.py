"""Prepare runs: batches numbered and seeded, checkpoints of a work directory, learning rates by batch size."""
