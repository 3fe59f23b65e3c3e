"""Parts of two-stage detectors. They need mmcv's compiled operators, so nothing is imported before it is used."""
