"""Data sets of other formats than DOTA's, read as they are, and the conversion between all of them."""
