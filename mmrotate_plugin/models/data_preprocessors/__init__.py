"""Data preprocessors; they need mmdet, so they are imported only when a config names one."""
