"""Compare config, data, checkpoint and model before the first iteration, so that no mistake costs a run."""
