"""MNIST, its pixels drawn by their grey values: the likelihood of test images by a `BinaryVAE`, in nats.

Training images are drawn anew each time they are seen, test images once, by a seed. The first 60,000 images train, and
the last 10,000 test; settings were chosen on the last 10,000 of the 60,000, trained on the others.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cells import Benchmark, Case, Facts, digest
from benchmarks.sources import IMAGES, TABLES, TEXTS, TOLD, reached
from data.atomic import atomic_path
from data.sources import open_source
from flows.cache import key_of
from vae import binary
from vae.binary import BinarySettings
from vae.loop import Rows
from vae.settings import Family, TrainSettings

TRAIN = 60_000
SIZE = 28, 28
LOOKED_AT = 2_000
"""Training images on which the bound is looked at while training goes on; nothing is held out."""
TEST_SEED = 1
"""Of the test images' pixels."""
WITHOUT = (*TABLES, *IMAGES, *TEXTS, *TOLD)
SOURCES = reached("benchmarks/likelihood.py", WITHOUT)
"""What a trained model depends on."""
DRAWS = 1_000
"""Importance samples an image."""
MODELS = {
    "gaussian": BinarySettings(family=Family.gaussian),
    "spike_slab": BinarySettings(family=Family.spike_slab, latents=64, presence=0.25),
}
STEPS = {"gaussian": 7_000, "spike_slab": 5_000}
MODELS_KEPT = Path(__file__).parents[1] / "build" / "bench-sparse"
"""Trained models, so that a likelihood can be measured again without a training."""


def training(case: str, seed: int = 0) -> TrainSettings:
    """How a case is trained."""
    return TrainSettings(
        batch_rows=128, steps=STEPS[case], seed=seed, encoder_lr=0.003, decoder_lr=0.003, patience=60
    )


def images() -> tuple[np.ndarray, np.ndarray]:
    """Training and test images, bytes (rows, height, width)."""
    column = open_source("sample:mnist").table()["image"].combine_chunks()
    pixels = column.flatten().to_numpy().reshape(-1, *SIZE).copy()  # Arrow's own cannot be written to
    return pixels[:TRAIN], pixels[TRAIN:]


def measure(case: str, seed: int) -> dict[str, Any]:
    """Test likelihood, and what hard codes of the test images are like."""
    learn, held = images()
    model, trained = trained_model(case, seed, learn)
    generator = torch.Generator().manual_seed(TEST_SEED)
    shown = model.shown(torch.from_numpy(held), generator)
    nats = binary.iwae_nats(model, shown, DRAWS, generator)
    elbo = torch.cat([model.log_weights(part, 1, generator).detach()[0] for part in shown.split(1_000)])
    there = torch.cat([model.encode(part) != 0 for part in shown.split(1_000)])
    return {
        "nats": nats.double().mean().item(),
        "standard_error": (nats.double().std() / len(nats) ** 0.5).item(),
        "elbo_nats": -elbo.double().mean().item(),
        "nonzeros": there.sum(1).double().mean().item(),
        "latents": there.shape[1],
        "dead": int((~there.any(0)).sum()),
        "always": int(there.all(0).sum()),
        "draws": DRAWS,
        **trained,
    }


def trained_model(case: str, seed: int, learn: np.ndarray) -> tuple[binary.BinaryVAE, dict[str, Any]]:
    """The model of a case, and how it was trained; the one that is kept if it is of these sources and settings."""
    settings, how = MODELS[case], training(case, seed)
    key = key_of("likelihood", {"model": settings, "training": how}, sources=digest(SOURCES))
    path = MODELS_KEPT / f"{case}-{seed}-{key[:16]}.pt"
    if path.is_file():
        kept = torch.load(path, weights_only=True)
        model = binary.BinaryVAE(SIZE, settings)
        model.load_state_dict(kept["weights"])
        return model.eval(), kept["trained"]
    began = time.perf_counter()
    rows = Rows({"image": learn}, np.arange(len(learn)), np.arange(LOOKED_AT))
    model, history = binary.fit(rows, settings, how, on_progress=_told)
    last = {name: value for name, value in history[-1].items() if isinstance(value, float)}
    trained = {"train_seconds": time.perf_counter() - began, "last": last}
    with atomic_path(path) as place:
        torch.save({"weights": model.state_dict(), "trained": trained}, place)
    return model, trained


def _told(told: dict[str, Any]) -> None:
    if told["step"] % 80 == 0:
        print(f"step {told['step']} of {told['steps']}: {told['loss']:.2f} nats", file=sys.stderr)


def _tell(facts: Facts) -> str:
    codes = f"{facts['nonzeros']:.1f} of {facts['latents']} non-zero, {facts['dead']} never"
    nats = f"{facts['nats']:.2f} ± {facts['standard_error']:.2f} nats by {facts['draws']:,} draws"
    return f"{nats}; {codes}; trained {facts['train_seconds'] / 60:.0f} min"


def _case(name: str, reach: str) -> Case:
    settings = {
        "model": MODELS[name].model_dump(mode="json"),
        "training": training(name).model_dump(mode="json"),
    }
    return Case(settings, reach, _tell)


LIKELIHOOD = Benchmark(
    title="MNIST, pixels drawn by their grey values; test NLL by IWAE",
    published="nearby protocols. Fixed binarisation: VAE 89.78 (200 samples), IWAE-50 86.82, VAMP-500 85.79; dynamic: "
    "CIWAE 84.74, PIWAE 84.58",
    sources=("benchmarks/likelihood.py", *SOURCES),
    cases={
        "gaussian": _case("gaussian", "88"),
        "spike_slab": _case("spike_slab", "90, with fewer than 16 non-zeros"),
    },
    measure=measure,
)
