"""Options of ``mmrotate-plugin convert-weights``."""

from . import options

HELP = 'convert checkpoints to or from mmrotate'
DESCRIPTION = (
    'Convert the weights of ReResNet and ReFPN between mmrotate and this package. Other weights and meta stay as they '
    'are; optimizer states are left out.'
)
VERBATIM = True
EPILOG = """
Files of mmrotate and of ReDet load here without conversion: init_cfg=dict(type='Pretrained', ...), load_from and the
commands take them as they are. --to plugin makes a file smaller: it leaves out what e2cnn derives from the weights.

--to mmrotate writes parameters and running statistics. mmrotate's classes have further keys (sampled kernels, indices,
expanded filters), which they compute themselves: load with strict=False, mmengine's default, and before eval(), because
e2cnn expands its filters on the switch to it. mmrotate's classes are written for C8.

Checkpoints of the original ReDet repository (mmdet 1.x, --to plugin): backbone, neck and rpn_head are converted;
bbox_head and rbbox_head are left out, because their boxes differ from those of mmrotate's heads: class 0 is the
background, regions are turned by -90 degrees and one pixel larger, and their sides are not ordered. The anchors of that
rpn_head lie (stride - 1) / 2 pixels to the right of and below mmrotate's. Train the heads again.
"""


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    parser.add_argument('input', metavar='IN', help='checkpoint file')
    options.add_unsafe_checkpoint(parser)
    parser.add_argument('output', metavar='OUT', help='checkpoint file to write; must not be IN')
    parser.add_argument('--to', choices=['mmrotate', 'plugin'], required=True, help='whose keys OUT gets')
