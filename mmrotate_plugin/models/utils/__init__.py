"""What the models share: groups and weights that fit, conversion of weights, counted operations, CPUs in parallel."""
