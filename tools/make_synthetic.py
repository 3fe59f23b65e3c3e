#!/usr/bin/env python
"""Write synthetic aerial scenes in DOTA format, like ``mmrotate-plugin make-synthetic``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works uninstalled

from mmrotate_plugin_cli.main import tool

main = tool('make-synthetic', __file__)

if __name__ == '__main__':
    sys.exit(main())
