"""Use a detector from Python: read a config, load a checkpoint, detect on images, train or test."""
