"""Data preprocessors; they need mmdet, so they are imported when a config asks for one."""
