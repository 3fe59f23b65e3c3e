#!/usr/bin/env python
"""Write a config for a folder of images and labels, like ``mmrotate-plugin init``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works uninstalled

from mmrotate_plugin_cli.main import tool

main = tool('init', __file__)

if __name__ == '__main__':
    sys.exit(main())
