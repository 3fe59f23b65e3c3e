"""Print 'cpu', or 'cuda' with its version, or why a GPU cannot be compiled for. Run in the environment."""

import os
import re
import subprocess

import torch
from torch.utils.cpp_extension import CUDA_HOME

if not torch.cuda.is_available() and os.getenv('FORCE_CUDA', '0') != '1':
    print('cpu')
elif CUDA_HOME is None:
    print(f'no compiler nvcc of CUDA {torch.version.cuda}')
else:
    text = subprocess.run([os.path.join(CUDA_HOME, 'bin', 'nvcc'), '--version'], capture_output=True, text=True).stdout
    release = re.search(r'release (\d+)\.(\d+)', text)
    if release and release[1] == str(torch.version.cuda).split('.')[0]:
        print('cuda', release[0], os.getenv('TORCH_CUDA_ARCH_LIST') or torch.cuda.get_device_capability())
    else:
        print(f'nvcc is of another CUDA than {torch.version.cuda}')
