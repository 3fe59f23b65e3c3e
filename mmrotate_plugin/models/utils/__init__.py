"""Helpers that the models share: checks of groups and weights, conversion, operation counts, training on CPUs."""
