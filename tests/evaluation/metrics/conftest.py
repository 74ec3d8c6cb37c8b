"""A small split, a model's predictions for it, and the log."""

import logging

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger

from mmdf2.datasets.prepare import open_or_prepare

from ..small_split import DIMS, predict, write_split


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('split')
    write_split(root, np.random.default_rng(3))
    return root


@pytest.fixture(scope='module')
def store(root):
    return open_or_prepare(root, 'validation')


@pytest.fixture
def similarity():
    generator = torch.Generator().manual_seed(0)
    weight = torch.stack([-torch.rand(DIMS, generator=generator), torch.rand(DIMS, generator=generator)])
    return {'weight': weight, 'bias': torch.tensor([0.3, -0.1])}


@pytest.fixture
def samples(store, similarity):
    return predict(store, np.random.default_rng(4), similarity)


@pytest.fixture
def log(caplog):
    """The text of MMEngine's log, whose logger does not propagate to pytest by itself."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)
