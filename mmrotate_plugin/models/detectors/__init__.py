"""Whole detectors. They need mmdet, so nothing is imported before its name is looked up."""
