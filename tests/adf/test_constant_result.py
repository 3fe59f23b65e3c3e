"""The mark of constant results is torch's own, set without importing the compiler."""

from functools import cache

import pytest
import torch

from mmrotate_plugin.adf._compiler import constant_result


@pytest.mark.needs_torch('2.1', 'torch.compiler')
@pytest.mark.parametrize('wrap', [lambda f: f, cache])
def test_the_mark_is_that_of_torch(wrap):
    ours, theirs, unmarked = (wrap(lambda n: n + 1) for _ in range(3))
    assert constant_result(ours) is ours and ours(1) == 2
    torch.compiler.assume_constant_result(theirs)
    own, marked = ({name: vars(f)[name] for name in vars(f).keys() - vars(unmarked)} for f in (ours, theirs))
    assert own == marked != {}
