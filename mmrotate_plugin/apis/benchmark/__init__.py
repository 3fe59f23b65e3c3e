"""Measure what networks cost relative to a baseline: time in pairs, memory, size of checkpoints."""
