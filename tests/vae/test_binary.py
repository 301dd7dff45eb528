"""VAEs of binary images: their bounds against numeric integrals, and what they draw."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vae.binary import BinarySettings, BinaryVAE, fit, iwae_nats
from vae.latents import STEP, gaussian_log_density
from vae.loop import Rows
from vae.settings import Family, TrainSettings

SIZE = 3, 2
SMALL = {"latents": 1, "network": "dense", "width": 4, "activation": "tanh", "pseudo_rows": 0}


def vae(family: Family, **changes: object) -> BinaryVAE:
    torch.manual_seed(3)
    model = BinaryVAE(SIZE, BinarySettings.model_validate({**SMALL, "family": family, **changes}))
    with torch.no_grad():
        model.bias.copy_(torch.randn(6))
    return model.eval()


def images() -> Tensor:
    return (torch.rand(4, *SIZE, generator=torch.Generator().manual_seed(0)) < 0.5).float()


@torch.no_grad()
def evidence(model: BinaryVAE, image: Tensor, share: float) -> Tensor:
    """-log p(image) in nats by a sum over a fine grid of z; z is 0 but for a share of all."""
    z = torch.linspace(-8, 8, 4_001)
    log_p = gaussian_log_density(z) + math.log(16 / 4_000)
    zero, found = torch.zeros(1, 1), []
    for one in image:
        slab = (log_p - model.pixel_nats(z.unsqueeze(1) / STEP, one.expand(len(z), *SIZE))).logsumexp(0)
        spike = -model.pixel_nats(zero, one.unsqueeze(0))[0]
        found.append(torch.logaddexp(slab + math.log(share), spike + math.log(max(1e-30, 1 - share))))
    return -torch.stack(found)


@pytest.mark.parametrize(("family", "share"), [(Family.gaussian, 1.0), (Family.spike_slab, 0.2)])
@pytest.mark.parametrize("draws", [20_000, 1])
def test_bounds_are_near_the_evidence_and_above_it(family: Family, share: float, draws: int) -> None:
    model, image = vae(family), images()
    exact = evidence(model, image, share)
    generator = torch.Generator().manual_seed(1)
    if draws > 1:
        torch.testing.assert_close(iwae_nats(model, image, draws, generator), exact, atol=0.02, rtol=0)
    else:
        mean = -model.log_weights(image, 4_000, generator).mean(0)
        assert bool((mean > exact - 0.02).all())


@pytest.mark.parametrize("family", [Family.gaussian, Family.spike_slab])
@pytest.mark.parametrize("pseudo_rows", [0, 3])
def test_the_loss_is_the_bound_in_nats_an_image(family: Family, pseudo_rows: int) -> None:
    """What the closed form of the KL and the draws of the ratio say is one figure; with parts it is a bound on it."""
    model = vae(family, pseudo_rows=pseudo_rows)
    batch, generator = {"image": 255 * images().byte()}, torch.Generator().manual_seed(1)
    terms = [model.loss(batch, progress=1.0, phase="joint", generator=generator) for _ in range(800)]
    closed = torch.stack([term["pixels"] + term["kl"] for term in terms]).mean().item()
    assert terms[0]["loss"].item() == pytest.approx(
        sum(terms[0][name].item() for name in ("pixels", "kl", "penalty") if name in terms[0]), rel=1e-5
    )
    drawn = -model.log_weights(images(), 4_000, generator).mean().item()
    parts = family is Family.spike_slab and pseudo_rows
    assert closed > drawn - 0.03 if parts else closed == pytest.approx(drawn, abs=0.03)


def test_several_draws_train_on_the_tighter_bound() -> None:
    batch, generator = {"image": 255 * images().byte()}, torch.Generator().manual_seed(1)

    def mean(samples: int) -> float:
        model = vae(Family.gaussian, samples=samples)
        losses = [model.loss(batch, progress=1.0, phase="joint", generator=generator) for _ in range(400)]
        return float(np.mean([loss["loss"].item() for loss in losses]))

    assert mean(50) < mean(1) - 0.001


def test_the_kl_grows_to_its_full_weight() -> None:
    model, batch = vae(Family.gaussian, kl_warmup=0.5), {"image": 255 * images().byte()}
    for progress, weight in ((0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (1.0, 1.0)):
        terms = model.loss(
            batch, progress=progress, phase="joint", generator=torch.Generator().manual_seed(1)
        )
        assert terms["loss"].item() == pytest.approx(
            (terms["pixels"] + weight * terms["kl"]).item(), rel=1e-5
        )


def test_images_are_drawn_by_their_grey_values_or_are_them() -> None:
    grey = torch.tensor([0, 51, 204, 255], dtype=torch.uint8).view(1, 2, 2).expand(20_000, 2, 2)
    generator = torch.Generator().manual_seed(0)
    drawn = vae(Family.gaussian).shown(grey, generator)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(drawn.mean(0), torch.tensor([[0.0, 0.2], [0.8, 1.0]]), atol=0.015, rtol=0)
    told = vae(Family.gaussian, redrawn=False).shown(grey, generator)
    torch.testing.assert_close(told[0], torch.tensor([[0.0, 0.2], [0.8, 1.0]]))


def test_pixels_begin_with_their_usual_odds_and_the_prior_with_images() -> None:
    model = vae(Family.spike_slab, pseudo_rows=2)
    image = torch.tensor([0, 51, 204, 255, 255, 0], dtype=torch.uint8).view(1, *SIZE)
    model.begin("joint", {"image": image})
    torch.testing.assert_close(
        torch.sigmoid(model.bias), torch.tensor([0.001, 0.2, 0.8, 0.999, 0.999, 0.001]), atol=1e-5, rtol=0
    )
    assert model.latents.pseudo is not None
    torch.testing.assert_close(model.latents.pseudo.detach(), (image / 255).expand(2, *SIZE))


@pytest.mark.parametrize("family", [Family.gaussian, Family.spike_slab, Family.topk])
@pytest.mark.parametrize("network", ["dense", "convolution"])
def test_training_learns_what_two_images_have_in_common(family: Family, network: str) -> None:
    one = np.random.default_rng(0).random((2, 9, 8)) < 0.5
    rows = np.where(one[np.arange(64) % 2], 255, 0).astype(np.uint8)
    settings = BinarySettings.model_validate({
        "family": family, "latents": 4, "network": network, "width": 8, "pseudo_rows": 2, "active": 2,
    })  # fmt: skip
    training = TrainSettings(steps=200, batch_rows=16, encoder_lr=0.02, decoder_lr=0.02, threads=1)
    model, history = fit(Rows({"image": rows}, np.arange(64), np.zeros(0, np.int64)), settings, training)
    assert history[-1]["bits"] < 0.25 * 72
    assert ("code_bits" in history[-1]) == (family is not Family.topk)
    code = model.encode(torch.from_numpy(rows).float() / 255)
    assert torch.equal(code, code.round())
    assert not torch.equal(code[0], code[1])


def test_a_dense_network_without_hidden_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="depth 0: a dense network has one hidden layer at least"):
        BinarySettings(network="dense", depth=0)
