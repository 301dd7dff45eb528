"""Convolutional networks of images of any size."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vae.convolution import SMALLEST, ConvDecoder, ConvEncoder, Enlarge, Residual, sizes, strides
from vae.networks import ACTIVATIONS, Hidden

SHAPES = [(1, 28, 28), (3, 32, 32), (1, 5, 4), (2, 3, 50), (1, 17, 9), (4, 1, 1), (1, 8, 7)]
SMALL = Hidden(4, 1, "silu")


def encoder(shape: tuple[int, int, int], hidden: Hidden = SMALL, gain: float = 1.0) -> ConvEncoder:
    torch.manual_seed(0)
    return ConvEncoder(shape, 6, 2, hidden=hidden, gain=gain)


@given(height=st.integers(1, 300), width=st.integers(1, 300))
def test_maps_shrink_to_the_smallest_size_and_no_further(height: int, width: int) -> None:
    found = sizes((height, width))
    assert found[0] == (height, width)
    assert max(found[-1]) <= SMALLEST
    for large, small in pairwise(found):
        assert max(large) > SMALLEST
        for before, after, stride in zip(large, small, strides(large, small), strict=True):
            assert stride == (2 if before > SMALLEST else 1)
            assert (after - 1) * stride < before <= after * stride


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("depth", [0, 2])
def test_an_image_becomes_parameters_and_a_code_an_image(shape: tuple[int, int, int], depth: int) -> None:
    hidden = Hidden(4, depth, "silu")
    parameters = encoder(shape, hidden)(torch.zeros(5, *shape), torch.ones(()))
    assert parameters.shape == (5, 6, 2)
    image = ConvDecoder(6, shape, hidden=hidden)(torch.zeros(5, 6))
    assert image.shape == (5, *shape)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_networks_have_the_asked_blocks(activation: str) -> None:
    hidden = Hidden(4, 3, activation)
    networks = (
        ConvEncoder((1, 28, 28), 6, 2, hidden=hidden, gain=1.0),
        ConvDecoder(6, (1, 28, 28), hidden=hidden),
    )
    for network in networks:
        blocks = [layer for layer in network.modules() if isinstance(layer, Residual)]
        assert len(blocks) == 2 * 3
        kind = type(ACTIVATIONS[activation]())
        assert sum(isinstance(layer, kind) for layer in network.modules()) == 2 * len(blocks) + (
            1 if isinstance(network, ConvEncoder) else 2
        )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_pixel_is_read_and_every_weight_has_a_gradient(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(1)
    encode, decode = encoder(shape), ConvDecoder(6, shape, hidden=Hidden(4, 1, "silu"))
    image = torch.randn(1, *shape, requires_grad=True)
    decode(encode(image, torch.ones(()))[..., 0]).square().sum().backward()
    assert image.grad is not None
    assert bool((image.grad != 0).all())
    for network in (encode, decode):
        for weight in network.parameters():
            assert weight.grad is not None
            assert bool(torch.isfinite(weight.grad).all())


def test_rows_of_a_batch_do_not_see_each_other() -> None:
    encode = encoder((1, 12, 10))
    images = torch.randn(4, 1, 12, 10)
    alone = torch.cat([encode(image[None], torch.ones(())) for image in images])
    torch.testing.assert_close(encode(images, torch.ones(())), alone)


def test_gain_multiplies_what_an_encoder_says_and_shift_moves_its_first_output() -> None:
    image = torch.randn(3, 1, 9, 9)
    one, eight = encoder((1, 9, 9)), encoder((1, 9, 9), gain=8.0)
    last = one.layers[-1]
    assert isinstance(last, nn.Linear)
    bias = last.bias.detach().clone().view(6, 2)
    before = one(image, torch.ones(())).detach()
    torch.testing.assert_close(eight(image, torch.ones(())) - bias, 8 * (before - bias))
    with torch.no_grad():
        one.shift(torch.arange(6.0))
    moved = one(image, torch.ones(()))
    torch.testing.assert_close(moved[..., 0], before[..., 0] + torch.arange(6.0))
    torch.testing.assert_close(moved[..., 1], before[..., 1])


def test_enlarging_puts_the_parts_of_a_pixel_beside_each_other() -> None:
    enlarge = Enlarge(1, 1, (2, 1), (3, 2))
    with torch.no_grad():
        enlarge.layer.weight.zero_()
        enlarge.layer.weight[:, 0, 1, 1] = torch.tensor([1.0, 2.0, 3.0, 4.0])
        torch.nn.init.zeros_(enlarge.layer.get_parameter("bias"))
    pixels = enlarge(torch.tensor([[[[1.0], [10.0]]]]))
    assert pixels[0, 0].tolist() == [[1, 2], [3, 4], [10, 20]]


def test_images_of_an_even_stride_match_pixel_shuffle() -> None:
    torch.manual_seed(2)
    enlarge = Enlarge(3, 2, (4, 5), (8, 10))
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(enlarge(x), torch.pixel_shuffle(enlarge.layer(x), 2))
