"""Rows as vectors, and dense networks of the asked shape."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vae.networks import ACTIVATIONS, RowInput, dense


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_dense_networks_have_the_asked_layers(activation: str) -> None:
    network = dense(5, 7, 3, 2, activation)
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(5, 7), (7, 7), (7, 7), (7, 2)]
    assert sum(isinstance(layer, type(ACTIVATIONS[activation]())) for layer in network) == 3
    assert isinstance(network[-1], nn.Linear)
    assert network(torch.zeros(4, 5)).shape == (4, 2)


def test_a_row_is_its_magnitudes_and_the_entries_of_its_own_columns() -> None:
    row = RowInput([3, 2], size=4)
    value = torch.tensor([[0.5, -9.0], [7.0, 0.0]])
    vector = row(value, torch.tensor([[2, 0], [0, 1]], dtype=torch.int32))
    assert vector.shape == (2, row.outputs) == (2, 10)
    assert vector[:, :2].tolist() == [[0.5, -6.0], [6.0, 0.0]]
    table = row.embedding
    assert table.shape == (5, 4)
    assert torch.equal(vector[0, 2:], torch.cat([table[2], table[3]]))
    assert torch.equal(vector[1, 2:], torch.cat([table[0], table[4]]))


def test_gradients_reach_the_entries_that_were_seen_and_no_others() -> None:
    row = RowInput([3, 2], size=4)
    row(torch.zeros(1, 2), torch.tensor([[1, 1]])).sum().backward()
    assert row.embedding.grad is not None
    assert row.embedding.grad.abs().sum(1).tolist() == [0, 4, 0, 0, 4]


def test_a_row_without_columns_is_empty() -> None:
    row = RowInput([])
    assert row(torch.zeros(3, 0), torch.zeros(3, 0, dtype=torch.int32)).shape == (3, 0)
    assert row.outputs == 0
