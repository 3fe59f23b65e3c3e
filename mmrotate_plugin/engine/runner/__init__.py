"""What a run stands on: batches by their number, checkpoints of a work directory, learning rates by batch size."""
