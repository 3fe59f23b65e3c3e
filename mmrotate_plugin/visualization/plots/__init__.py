"""Figures of measurements: calibration, equivariance, benchmarks, steerable bases."""
