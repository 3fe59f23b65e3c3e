#!/usr/bin/env python
"""Export a detector to run without this package, like ``mmrotate-plugin export``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works uninstalled

from mmrotate_plugin_cli.main import tool

main = tool('export', __file__)

if __name__ == '__main__':
    sys.exit(main())
