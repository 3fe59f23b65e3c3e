"""Measure speed and memory of networks as ratios of interleaved pairs."""
