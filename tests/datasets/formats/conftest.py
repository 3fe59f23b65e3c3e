"""What the data sets of all formats say."""

import logging

import pytest

from mmrotate_plugin.utils import messages


@pytest.fixture
def said(monkeypatch):
    """Texts of the warnings."""
    texts = []

    def record(text, logger=None, level=logging.INFO):  # noqa: ARG001
        if level == logging.WARNING:
            texts.append(text)

    monkeypatch.setattr(messages, 'print_log', record)
    return texts
