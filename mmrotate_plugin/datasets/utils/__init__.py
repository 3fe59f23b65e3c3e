"""Helpers that data sets share: files of a folder, class names, image headers, counts, damage, foreign formats."""
