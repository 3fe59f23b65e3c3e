"""Metadata. torch, mmcv, mmengine, mmdet and mmrotate are no requirements: see `mmrotate_plugin/_dependencies.py`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (HERE / 'mmrotate_plugin' / 'version.py').read_text(encoding='utf-8'))[1]

setup(
    name='mmrotate_plugin',
    version=VERSION,
    description='Rotation-equivariant backbones and uncertainty for OpenMMLab detectors',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    author='The mmrotate_plugin contributors',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    python_requires='>=3.10',
    packages=find_packages(include=['mmrotate_plugin', 'mmrotate_plugin.*']),
    # .mim/configs is a link to configs/: where mmengine looks for `mmrotate_plugin::...`, installed or in place
    package_data={
        'mmrotate_plugin': [
            'py.typed',
            '.mim/model-index.yml',
            '.mim/configs/*.py',
            '.mim/configs/*/*.py',
            '.mim/configs/*/*/*.py',
            '.mim/configs/*/metafile.yml',
        ]
    },
    install_requires=['e2cnn>=0.2.3'],
    extras_require={
        # one of these two, never both: they share import names
        'onedl': ['onedl-mmengine>=0.10.8', 'onedl-mmcv>=2.3', 'onedl-mmdetection>=3.4', 'onedl-mmrotate>=1.2'],
        'openmmlab': ['mmengine>=0.8', 'mmcv>=2.0,<2.2', 'mmdet>=3.0,<3.4', 'mmrotate>=1.0.0rc1'],
        'export': ['onnx>=1.15', 'onnxruntime>=1.16', 'safetensors>=0.4'],  # tools/export.py
        'tiff': ['tifffile>=2022.8.12'],  # TIFFs of several bands
        'docs': ['sphinx>=8', 'myst-parser>=4', 'furo>=2024'],  # make docs
        'test': ['hypothesis', 'pytest', 'pytest-xdist', 'ruff', 'shapely>=2'],
    },
    zip_safe=False,
)
