"""Heads of one-stage detectors; they need mmdet, so they are imported when a config names them."""
