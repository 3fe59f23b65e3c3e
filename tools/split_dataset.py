#!/usr/bin/env python
"""Split large images into overlapping patches, like ``mmrotate-plugin split-dataset``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works uninstalled

from mmrotate_plugin_cli.main import tool

main = tool('split-dataset', __file__)

if __name__ == '__main__':
    sys.exit(main())
