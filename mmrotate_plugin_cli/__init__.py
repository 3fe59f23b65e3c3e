"""The command line of mmrotate_plugin, read with argparse alone.

Importing `mmrotate_plugin` imports torch, which takes seconds. This package stands next to it, not inside it, so that
``mmrotate-plugin --help``, shell completion and mistyped options need neither torch nor OpenMMLab. A command that runs
imports its work from `mmrotate_plugin.commands`.
"""
