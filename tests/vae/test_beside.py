"""Parts of a loss beside one another: their sum and its gradients, on any number of threads."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vae.beside import Part, beside, threads


@pytest.fixture
def weights() -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(5, 5, generator=random, dtype=torch.float64)) for _ in range(3)]


def parts_of(weights: list[nn.Parameter]) -> list[Part]:
    """The middle weights belong to both; the first part does not look at the second input."""

    def first(x: Tensor, _y: Tensor) -> tuple[Tensor, Any]:
        return torch.tanh(x @ weights[0] @ weights[1]).square().sum(), threading.current_thread().name

    def second(x: Tensor, y: Tensor) -> tuple[Tensor, Any]:
        return (torch.sin(x @ weights[1]) * (y @ weights[2])).sum(), threading.current_thread().name

    return [Part(first, weights[:2]), Part(second, weights[1:])]


def inputs(*, grad: bool = True) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    x, y = (torch.randn(4, 5, generator=random, dtype=torch.float64) for _ in range(2))
    return x.requires_grad_(grad), y


@pytest.mark.parametrize("number", [1, 2, 5])
def test_value_and_gradients_are_those_of_the_plain_sum(weights: list[nn.Parameter], number: int) -> None:
    x, y = inputs()
    plain = sum((part.of(x, y)[0] for part in parts_of(weights)), torch.zeros(()))
    wanted = torch.autograd.grad(3 * plain, [x, *weights])
    with threads(number):
        total, _ = beside(parts_of(weights), [x, y])
        found = torch.autograd.grad(3 * total, [x, *weights])
    torch.testing.assert_close(total.detach(), plain.detach())
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_bits_do_not_depend_on_the_number_of_threads(weights: list[nn.Parameter]) -> None:
    found: list[list[Tensor]] = []
    for number in (1, 2, 4):
        x, y = inputs()
        with threads(number):
            total, _ = beside(parts_of(weights), [x, y])
            found.append([total, *torch.autograd.grad(total, [x, *weights])])
    assert all(
        torch.equal(one, other) for more in found[1:] for one, other in zip(found[0], more, strict=True)
    )


def test_the_second_part_runs_on_a_thread_of_its_own_if_there_is_one(weights: list[nn.Parameter]) -> None:
    here = threading.current_thread().name
    _, alone = beside(parts_of(weights), inputs())
    with threads(2):
        _, two = beside(parts_of(weights), inputs())
    assert alone == [here, here]
    assert two[0] == here
    assert two[1].startswith("part")


def test_a_gradient_flows_through_what_the_inputs_are_made_of(weights: list[nn.Parameter]) -> None:
    x, y = inputs()
    scale = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    with threads(2):
        total, _ = beside(parts_of(weights), [x.detach() * scale, y])
        total.backward()
    plain = sum((part.of(x.detach() * scale, y)[0] for part in parts_of(weights)), torch.zeros(()))
    assert scale.grad is not None
    torch.testing.assert_close(scale.grad, torch.autograd.grad(plain, scale)[0])
    assert all(weight.grad is not None for weight in weights)


def test_frozen_parameters_and_inputs_without_a_gradient_are_given_none(weights: list[nn.Parameter]) -> None:
    weights[0].requires_grad_(False)
    x, y = inputs(grad=False)
    with threads(2):
        total, _ = beside(parts_of(weights), [x, y])
        total.backward()
    assert weights[0].grad is None
    assert x.grad is None
    assert all(weight.grad is not None for weight in weights[1:])


def test_without_gradients_there_is_the_value_alone(weights: list[nn.Parameter]) -> None:
    with torch.no_grad():
        total, _ = beside(parts_of(weights), inputs())
    assert not total.requires_grad
    torch.testing.assert_close(total, beside(parts_of(weights), inputs())[0].detach())


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_part_that_fails_says_so_once_all_are_over_and_the_next_step_goes_on(
    weights: list[nn.Parameter], which: int
) -> None:
    over: list[int] = []

    def slow(x: Tensor, _y: Tensor) -> tuple[Tensor, Any]:
        time.sleep(0.05)
        over.append(1)
        return (x @ weights[0]).sum(), None

    def fails(_x: Tensor, _y: Tensor) -> tuple[Tensor, Any]:
        raise ValueError("no such column")

    with threads(3):
        with pytest.raises(ValueError, match="no such column"):
            beside([Part(fails if k == which else slow, weights[:1]) for k in range(3)], inputs())
        assert len(over) == 2
        beside(parts_of(weights), inputs())


def test_an_interrupt_is_not_taken_for_another_part_s_failure(weights: list[nn.Parameter]) -> None:
    def interrupted(_x: Tensor, _y: Tensor) -> tuple[Tensor, Any]:
        raise KeyboardInterrupt

    def fails(_x: Tensor, _y: Tensor) -> tuple[Tensor, Any]:
        raise ValueError("no such column")

    with threads(2), pytest.raises(KeyboardInterrupt):
        beside([Part(interrupted, []), Part(fails, [])], inputs())


def test_where_nothing_is_to_be_learnt_there_is_no_gradient_and_no_error(weights: list[nn.Parameter]) -> None:
    x, y = inputs(grad=False)
    frozen = [weight.detach() for weight in weights]
    total, _ = beside([Part(lambda x, _y: ((x @ frozen[0]).sum(), None), [])], [x, y])
    assert not total.requires_grad

    def constant(_x: Tensor, _y: Tensor) -> tuple[Tensor, Any]:
        return torch.ones((), dtype=torch.float64), None

    x, y = inputs()
    total, _ = beside([Part(constant, []), *parts_of(weights)], [x, y])
    plain, _ = beside(parts_of(weights), [x, y])
    assert torch.equal(*(torch.autograd.grad(each, x)[0] for each in (total, plain)))


def test_threads_of_parts_are_as_the_library_is_set_here() -> None:
    before = torch.get_num_threads()

    def asks(x: Tensor) -> tuple[Tensor, Any]:
        return x.sum(), torch.get_num_threads()

    try:
        torch.set_num_threads(1)
        with threads(2):
            _, found = beside([Part(asks, []), Part(asks, [])], [torch.ones(1, requires_grad=True)])
    finally:
        torch.set_num_threads(before)
    assert found == [1, 1]
