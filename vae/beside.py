"""Parts of a loss beside one another: each is computed with its gradient, on a thread of its own.

A step of training is thousands of small operations. On threads that share an operation they gain little, since one
waits for the other after each; parts that share nothing but what they are given wait once. What comes out is the
same whatever the number of threads. What torch keeps for each thread, as whether autocast is on, a part on another one
does not see.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_pool: ContextVar[ThreadPoolExecutor | None] = ContextVar("_pool", default=None)


@dataclass(frozen=True)
class Part:
    """A part of a loss: a function of what all parts are given, and of parameters that are its own business."""

    of: Callable[..., tuple[Tensor, Any]]
    """Inputs -> a scalar that is part of the loss, and whatever else is to be known of it, without a gradient."""
    parameters: Sequence[Tensor]
    """The leaves, beside the inputs, that it depends on."""


@contextmanager
def threads(number: int) -> Generator[None]:
    """Within, parts on a CPU run on so many threads, this one among them, if there are parts enough."""
    if number <= 1:
        yield
        return
    # a thread that begins has the library's own idea of how many threads an operation takes
    each = torch.get_num_threads()
    with ThreadPoolExecutor(number - 1, "part", initializer=torch.set_num_threads, initargs=(each,)) as pool:
        before = _pool.set(pool)
        try:
            yield
        finally:
            _pool.reset(before)


def beside(parts: Sequence[Part], inputs: Sequence[Tensor]) -> tuple[Tensor, list[Any]]:
    """The sum of all parts' scalars, differentiable once in inputs and parameters, and what else is known of each."""
    # a parameter of several parts is given once
    leaves = {id(leaf): leaf for part in parts for leaf in part.parameters if leaf.requires_grad}
    if not torch.is_grad_enabled() or not any(each.requires_grad for each in (*inputs, *leaves.values())):
        found = [part.of(*inputs) for part in parts]
        return torch.stack([scalar for scalar, _ in found]).sum(), [more for _, more in found]
    more: list[Any] = []
    total = cast(Tensor, _Beside.apply(parts, len(inputs), more, *inputs, *leaves.values()))
    return total, more


class _Beside(torch.autograd.Function):
    """Has its gradients when it has its value: they are asked for once, and soon."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, parts: Sequence[Part], count: int, more: list[Any], *tensors: Tensor
    ) -> Tensor:
        inputs, leaves = tensors[:count], tensors[count:]

        def run(part: Part) -> tuple[Tensor, Any, dict[int, Tensor]]:
            given = [each.detach().requires_grad_(each.requires_grad) for each in inputs]
            with torch.enable_grad():
                scalar, known = part.of(*given)
            if not scalar.requires_grad:
                return scalar, known, {}
            own = {id(leaf) for leaf in part.parameters}
            wanted = {k: each for k, each in enumerate(given) if each.requires_grad}
            wanted |= {count + k: leaf for k, leaf in enumerate(leaves) if id(leaf) in own}
            # None, whatever its type says, for what the part does not depend on
            grads = cast(
                Sequence[Tensor | None],
                torch.autograd.grad(scalar, list(wanted.values()), allow_unused=True),
            )
            return scalar.detach(), known, {k: g for k, g in zip(wanted, grads, strict=True) if g is not None}

        pool = _pool.get() if inputs[0].device.type == "cpu" else None
        if pool is None:
            done = [run(part) for part in parts]
        else:
            others = [pool.submit(run, part) for part in parts[1:]]
            try:
                first = run(parts[0])
            finally:
                # what reads the parameters has to be over before anybody goes on, also where a part failed
                wait(others)
            done = [first, *(other.result() for other in others)]
        ctx.grads = _summed([grads for *_, grads in done], len(tensors))
        more.extend(known for _, known, _ in done)
        return torch.stack([scalar for scalar, *_ in done]).sum()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        return (None, None, None, *(None if each is None else each * grad for each in ctx.grads))


def _summed(of: Sequence[dict[int, Tensor]], count: int) -> list[Tensor | None]:
    """The gradient of each of `count` tensors, of those of all parts, always in their order."""
    total: list[Tensor | None] = [None] * count
    for grads in of:
        for k, grad in grads.items():
            known = total[k]
            total[k] = grad if known is None else known + grad
    return total
