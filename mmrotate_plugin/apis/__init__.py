"""Use a detector from Python: read a config, load a checkpoint, detect on images, run a training or test."""
