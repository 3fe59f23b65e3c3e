"""From the command line to files that mmdet reads where this package and e2cnn cannot be imported."""

import json
import shutil
import sys

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmrotate')
pytest.importorskip('onnxruntime')
pytest.importorskip('safetensors')

from mmengine.config import Config  # noqa: E402
from safetensors import safe_open  # noqa: E402

from mmrotate_plugin.engine import cli, inference  # noqa: E402
from mmrotate_plugin.export import Unsupported, verify  # noqa: E402
from mmrotate_plugin.testing import randomize_norms_  # noqa: E402
from tests.tools.conftest import ROOT  # noqa: E402

CONFIGS = {
    'fcos': 'synthetic/rotated-fcos_re18_fpn_synthetic.py',
    'redet': 'synthetic/redet_re18_refpn_synthetic.py',
    'adf': 'adf/uncertain-rotated-fcos_adfr18_fpn_synthetic.py',
}
SMALL = ['--cfg-options', 'test_dataloader.dataset.pipeline.1.scale=97']
