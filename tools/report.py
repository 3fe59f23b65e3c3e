#!/usr/bin/env python
"""Write the report of a run, like ``mmrotate-plugin report``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works uninstalled

from mmrotate_plugin_cli.main import tool

main = tool('report', __file__)

if __name__ == '__main__':
    sys.exit(main())
