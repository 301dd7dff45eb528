"""Fashion-MNIST: logistic regression on sparse codes of 5,000 labelled images, beside the same on their pixels.

Codes are those of a `topk` family of `vae.binary`, trained without labels on the 60,000 training images, whose grey
values it tells. A latent that is below 0 says something else than one that is above: the classifier gets each latent as
two features, how far above and how far below, of which one at most is not 0. Its weight decay is chosen on 1,000 of the
5,000, for codes and pixels alike.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from benchmarks.cells import Benchmark, Case, Facts
from benchmarks.sources import IMAGES, TABLES, TEXTS, TOLD, reached
from data.sources import open_source
from vae import binary
from vae.binary import BinarySettings
from vae.loop import Rows
from vae.settings import Family, TrainSettings

TRAIN, LABELLED, CHOOSING = 60_000, 5_000, 1_000
LOOKED_AT = 500
"""Training images on which the bound is looked at while training goes on; nothing is held out."""
SIZE = 28, 28
DECAYS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Choices for scikit-learn's C."""
RAW = "pixels"
WITHOUT = (*TABLES, *IMAGES, *TEXTS, *TOLD)
MODELS = {
    f"d={latents}": BinarySettings(family=Family.topk, latents=latents, active=14.5, redrawn=False)
    for latents in (64, 200, 512, 1_024)
}
TRAINING = TrainSettings(batch_rows=128, steps=1_500, encoder_lr=0.002, decoder_lr=0.002, patience=60)


def images() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """All images, bytes (rows, height, width), those that train first; and their labels."""
    table = open_source("sample:fashion-mnist").table().combine_chunks()
    pixels = table["image"].combine_chunks().flatten().to_numpy()
    return pixels.reshape(-1, *SIZE).copy(), table["label"].to_numpy()  # Arrow's own cannot be written to


def measure(case: str, seed: int) -> dict[str, Any]:
    """Accuracy on the test images, in percent."""
    pixels, labels = images()
    chosen = np.random.default_rng(seed).permutation(TRAIN)[:LABELLED]
    if case == RAW:
        return accuracy(pixels.reshape(len(pixels), -1) / 255, labels, chosen)
    began = time.perf_counter()
    rows = Rows({"image": pixels[:TRAIN]}, np.arange(TRAIN), np.arange(LOOKED_AT))
    model, _ = binary.fit(rows, MODELS[case], TRAINING.model_copy(update={"seed": seed}))
    trained = time.perf_counter() - began
    codes = codes_of(model, pixels)
    there = codes[TRAIN:] != 0
    return {
        **accuracy(np.hstack([codes.clip(min=0), (-codes).clip(min=0)]), labels, chosen),
        "nonzeros": float(there.sum(1).mean()),
        "dead": int((~there.any(0)).sum()),
        "train_seconds": trained,
    }


def codes_of(model: binary.BinaryVAE, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Hard codes, (rows, latents)."""
    parts = torch.from_numpy(pixels).split(1_000)
    return torch.cat([model.encode(part.to(torch.float32) / 255) for part in parts]).numpy()


def accuracy(
    features: NDArray[Any], labels: NDArray[np.uint8], chosen: NDArray[np.int64]
) -> dict[str, float]:
    """Of a classifier of the `chosen` training rows, on the rows from `TRAIN` on; and the C that was chosen.

    Features are divided by one number, so that the choices of C mean the same for all.
    """
    features = features / features[chosen].std()

    def fitted(c: float, rows: NDArray[np.int64]) -> LogisticRegression:
        return LogisticRegression(C=c, max_iter=2_000).fit(features[rows], labels[rows])

    aside, others = chosen[:CHOOSING], chosen[CHOOSING:]
    c = max(DECAYS, key=lambda c: fitted(c, others).score(features[aside], labels[aside]))
    return {"accuracy": 100 * float(fitted(c, chosen).score(features[TRAIN:], labels[TRAIN:])), "c": c}


def _tell(facts: Facts) -> str:
    found = f"{facts['accuracy']:.1f}%"
    return f"{found}; {facts['nonzeros']:.1f} non-zero" if "nonzeros" in facts else found


def _case(name: str) -> Case:
    if name == RAW:
        return Case({"decays": DECAYS}, "", _tell, "accuracy")
    settings = {"model": MODELS[name].model_dump(mode="json"), "training": TRAINING.model_dump(mode="json")}
    return Case(
        settings, "pixels less 1 point, with at most 16 non-zeros; flat within 1 point", _tell, "accuracy"
    )


LABELS = Benchmark(
    title="Fashion-MNIST, logistic regression on codes, 5,000 labels",
    published="d=200: VSC 79.7%, VAE 67.1% (a public reproduction)",
    sources=("benchmarks/labels.py", *reached("benchmarks/labels.py", WITHOUT)),
    cases={name: _case(name) for name in (RAW, *MODELS)},
    measure=measure,
    seeds=(0, 1, 2),
)
