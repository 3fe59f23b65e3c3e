"""Split large images into overlapping patches, with their labels."""
