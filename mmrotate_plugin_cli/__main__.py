"""Run the command line as ``python -m mmrotate_plugin_cli``."""

import sys

from .main import main

sys.exit(main())
