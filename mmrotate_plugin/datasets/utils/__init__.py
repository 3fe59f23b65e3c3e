"""What the data sets share: files of a folder, class names, image headers, counts, damage and foreign formats."""
