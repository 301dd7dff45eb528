"""The article's example, corrected: it runs, and shows what it says it shows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "article.py"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def article() -> ModuleType:
    spec = spec_from_file_location("article", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "article", module)  # dataclasses look their module up
        spec.loader.exec_module(module)
    return module


def test_independent_columns_collapse_and_rank_ten_does_not(article: ModuleType) -> None:
    noise, structure = article.run(steps=800).values()
    assert noise.elbo == pytest.approx(noise.exact, abs=1.5)
    assert noise.kl < 0.5
    assert noise.active == 0
    assert noise.r2 < 0.02
    assert structure.elbo - structure.independent > 115
    assert structure.active == article.LATENTS
    assert structure.r2 > 0.88


def test_the_bounds_are_lower_bounds_in_their_order(article: ModuleType) -> None:
    for result in article.run(seed=1, steps=300).values():
        assert result.elbo < result.iwae < result.exact


def test_the_objective_is_the_negative_elbo(article: ModuleType) -> None:
    """With the decoder at zero and q = N(0, 1), -ELBO is the entropy of x under N(0, 1); a shifted q adds its KL."""
    model = article.Vae()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        x = torch.ones(1, article.COLUMNS)
        plain = article.COLUMNS * 0.5 * (1 + math.log(2 * math.pi))
        assert article.negative_elbo(model, x, 1.0).item() == pytest.approx(plain, rel=1e-5)
        model.encoder[2].bias[0] = 3.0
        assert article.negative_elbo(model, x, 1.0).item() == pytest.approx(plain + 4.5, rel=1e-5)
        assert article.negative_elbo(model, x, 0.0).item() == pytest.approx(plain, rel=1e-5)


def test_it_prints_its_table(
    article: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(article.run, "__defaults__", (0, 5))
    article.main()
    assert "ELBO (a lower bound)" in capsys.readouterr().out
