#!/usr/bin/env python
"""Measure the mAP of a detector over the angle of the scene, like ``mmrotate-plugin evaluate-angles``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works uninstalled

from mmrotate_plugin_cli.main import tool

main = tool('evaluate-angles', __file__)

if __name__ == '__main__':
    sys.exit(main())
