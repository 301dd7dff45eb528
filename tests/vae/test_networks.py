"""Rows as vectors, and dense networks of the asked shape."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vae.networks import ACTIVATIONS, COOL, ColumnEncoder, DenseEncoder, Hidden, RowInput, dense


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_dense_networks_have_the_asked_layers(activation: str) -> None:
    network = dense(5, 7, 3, 2, activation)
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(5, 7), (7, 7), (7, 7), (7, 2)]
    assert sum(isinstance(layer, type(ACTIVATIONS[activation]())) for layer in network) == 3
    assert isinstance(network[-1], nn.Linear)
    assert network(torch.zeros(4, 5)).shape == (4, 2)


def test_a_row_is_the_magnitude_and_the_entry_of_each_column() -> None:
    row = RowInput([3, 2], size=4)
    value = torch.tensor([[0.5, -9.0], [7.0, 0.0]])
    vector = row(value, torch.tensor([[2, 0], [0, 1]], dtype=torch.int32))
    assert vector.shape == (2, 2, row.features) == (2, 2, 5)
    assert vector[:, :, 0].tolist() == [[0.5, -6.0], [6.0, 0.0]]
    table = row.embedding
    assert table.shape == (5, 4)
    assert torch.equal(vector[0, :, 1:], torch.stack([table[2], table[3]]))
    assert torch.equal(vector[1, :, 1:], torch.stack([table[0], table[4]]))


def test_gradients_reach_the_entries_that_were_seen_and_no_others() -> None:
    row = RowInput([3, 2], size=4)
    row(torch.zeros(1, 2), torch.tensor([[1, 1]])).sum().backward()
    assert row.embedding.grad is not None
    assert row.embedding.grad.abs().sum(1).tolist() == [0, 4, 0, 0, 4]


def test_a_row_without_columns_is_empty() -> None:
    row = RowInput([])
    assert row(torch.zeros(3, 0), torch.zeros(3, 0, dtype=torch.int32)).shape == (3, 0, row.features)


def encoder(reads: int = 2, columns: int = 5, latents: int = 7, depth: int = 2) -> ColumnEncoder:
    torch.manual_seed(0)
    return ColumnEncoder(
        [True] * columns, 3, latents, 2, reads=reads, hidden=Hidden(6, depth, "tanh"), gain=4.0
    )


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_latent_moves_with_the_columns_it_reads_and_with_no_other(depth: int) -> None:
    made, done = encoder(depth=depth), torch.ones(())
    row = torch.randn(4, 5, 3, requires_grad=True)
    code = made(row, done)
    assert code.shape == (4, 7, 2)
    for latent in range(7):
        (slope,) = torch.autograd.grad(code[:, latent].sum(), row, retain_graph=True)
        moved = slope.abs().sum((0, 2)) > 0
        assert torch.equal(moved, made.gates(done)[latent] > 0)
        assert moved.sum() == 2


@pytest.mark.parametrize(("reads", "kept"), [(1, 1), (3, 3), (99, 5)])
def test_all_columns_are_in_view_until_the_choice_is_made(reads: int, kept: int) -> None:
    made = encoder(reads)
    for progress in (0.0, COOL / 2):
        gates = made.gates(torch.tensor(progress))
        assert (gates > 0).all()
        assert gates.amax(1).tolist() == [1.0] * 7
    assert ((made.gates(torch.tensor(COOL)) > 0).sum(1) == kept).all()


def test_every_column_has_a_reader_at_first() -> None:
    assert sorted(set(encoder().gates(torch.zeros(())).argmax(1).tolist())) == [0, 1, 2, 3, 4]


def test_columns_that_are_no_use_to_a_code_have_no_reader() -> None:
    made = ColumnEncoder([False, True, False, True], 3, 5, 1, reads=3, hidden=Hidden(4, 1, "relu"), gain=4.0)
    for progress in (0.0, 1.0):
        gates = made.gates(torch.tensor(progress))
        assert (gates[:, [0, 2]] == 0).all()
        assert (gates[:, [1, 3]] > 0).all()
    alone = ColumnEncoder([False, False], 3, 5, 1, reads=2, hidden=Hidden(4, 1, "relu"), gain=4.0)
    assert (alone.gates(torch.ones(())) > 0).all()


def test_the_choice_of_columns_is_learned() -> None:
    made = encoder(reads=1, latents=1)
    with torch.no_grad():
        made.gate.copy_(torch.tensor([[0.5, 0.0, 0.0, 0.0, 0.0]]))
    optimiser = torch.optim.Adam(made.parameters(), 0.05)
    for step in range(400):
        row = torch.randn(256, 5, 3)
        loss = (made(row, torch.tensor(step / 400))[:, 0, 0] - row[:, 3, 0]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert made.gates(torch.ones(())).argmax() == 3
    assert loss.item() < 0.1


def test_a_dense_encoder_lets_all_latents_see_all_columns() -> None:
    torch.manual_seed(0)
    made = DenseEncoder(15, 7, 2, hidden=Hidden(6, 2, "tanh"), gain=4.0)
    row = torch.randn(4, 5, 3, requires_grad=True)
    code = made(row, torch.ones(()))
    assert code.shape == (4, 7, 2)
    (slope,) = torch.autograd.grad(code[:, 0].sum(), row)
    assert (slope.abs().sum((0, 2)) > 0).all()
