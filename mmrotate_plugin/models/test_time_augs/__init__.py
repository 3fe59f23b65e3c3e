"""Test-time augmentation. It needs mmdet, so nothing is imported before its name is looked up."""
