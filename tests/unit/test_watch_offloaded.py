"""The watch measures gradients that do not lie where the loss does."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from distill.callbacks.watch import norm


def test_the_norm_of_offloaded_gradients_lies_where_the_loss_does():
    with FakeTensorMode():  # which knows GPUs where there are none
        gradients, loss = [torch.ones(3), None, torch.ones(2, 2)], torch.ones((), device="cuda")
        assert norm(gradients, loss.device).device == loss.device
        assert norm([None], loss.device).device == loss.device


def test_it_is_that_of_all_gradients_together():
    gradients = [torch.tensor([3.0, 4.0]), None, torch.tensor(12.0, dtype=torch.bfloat16)]
    assert norm(gradients, torch.device("cpu")).item() == pytest.approx(13.0)
