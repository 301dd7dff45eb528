"""Training: phases, early stopping, progress, and that a killed training ends as one that was not."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data.errors import ModelError
from vae import schedule
from vae.checkpoint import Checkpoints
from vae.loop import Batches, PhaseModule, Rows, State
from vae.settings import TrainSettings
from vae.train import run, training_key

SETTINGS = TrainSettings(batch_rows=64, threads=1, seed=3)
TOTAL = 200


class Toy(nn.Module):
    """Two latents for four columns; squared error in place of bits. Notes the phases it was trained in."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = nn.Linear(4, 2)
            self.decoder = nn.Linear(2, 4)
        self.phases: list[str] = []
        self.begun: list[str] = []

    def begin(self, phase: str, batch: dict[str, Tensor]) -> None:
        assert set(batch) == {"x"}
        self.begun.append(phase)

    def loss(
        self, batch: dict[str, Tensor], *, progress: float, phase: str, generator: torch.Generator
    ) -> dict[str, Tensor]:
        if not self.phases or self.phases[-1] != phase:
            self.phases.append(phase)
        codes = self.encoder(batch["x"])
        noise = torch.rand(codes.shape, generator=generator) - 0.5
        error = (self.decoder(codes + 0.1 * noise) - batch["x"]).square().sum(1).mean()
        return {"loss": error, "column": error}

    def validation_bits(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        error = (self.decoder(self.encoder(batch["x"])) - batch["x"]).square().sum(1)
        return {"code_bits": torch.zeros_like(error), "column_bits": error}

    def aims(self, phase: str) -> bool:
        return False

    def correct(self, phase: str, batch: dict[str, Tensor]) -> None:
        raise AssertionError

    def objective(self, bits: Mapping[str, float]) -> float:
        return bits["column_bits"]

    @property
    def default_learning_rates(self) -> Mapping[str, float]:
        return {"encoder": 0.002, "decoder": 0.02}

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [
            {"name": "encoder", "params": self.encoder.parameters()},
            {"name": "decoder", "params": self.decoder.parameters()},
        ]


def toy_rows(n: int = 600, seed: int = 0) -> Rows:
    """Rows of rank two with a little noise; the last sixth validates."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(n, 2)) @ random.normal(size=(2, 4)) + 0.05 * random.normal(size=(n, 4))
    order = np.arange(n)
    return Rows({"x": values.astype(np.float32)}, order[: n * 5 // 6], order[n * 5 // 6 :])


def weights(model: nn.Module) -> bytes:
    return b"".join(value.numpy().tobytes() for _, value in sorted(model.state_dict().items()))


def trained(
    rows: Rows | None = None,
    settings: TrainSettings = SETTINGS,
    folder: Path | None = None,
    total: int = TOTAL,
    **more: Any,
) -> tuple[Toy, list[dict[str, Any]]]:
    model, rows = Toy(), rows or toy_rows()
    checkpoints = Checkpoints(folder, "key") if folder else None
    phases = schedule.phases(total, settings.refit_share)
    return model, run(model, rows, settings, total=total, phases=phases, checkpoints=checkpoints, **more)


def test_training_improves_and_goes_through_its_phases() -> None:
    model, history = trained()
    assert model.phases == model.begun == ["joint", "refit", "quantise"]
    assert history[-1]["bits"] < history[0]["bits"] / 2
    assert [entry["step"] for entry in history] == sorted({entry["step"] for entry in history})
    assert set(history[0]) == {"step", "phase", "loss", "column", "code_bits", "column_bits", "bits"}


class Aimed(Toy):
    """A code on its way to a target in its second phase, where each step is dearer than the one before."""

    level: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("level", torch.zeros(()))
        self.judged: list[float] = []

    def aims(self, phase: str) -> bool:
        return phase == "refit"

    def correct(self, phase: str, batch: dict[str, Tensor]) -> None:
        assert (phase, set(batch)) == ("refit", {"x"})
        self.judged.append(self.level.item())
        self.level += 1

    def validation_bits(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        bits = super().validation_bits(batch)
        return {**bits, "column_bits": bits["column_bits"] + 10 * self.level}


def test_on_the_way_to_a_target_the_last_state_that_was_judged_is_kept() -> None:
    settings = SETTINGS.model_copy(update={"patience": 1})
    model = Aimed()
    phases = schedule.phases(TOTAL, settings.refit_share)
    history = run(model, toy_rows(), settings, total=TOTAL, phases=phases)
    refitted = [entry for entry in history if entry["phase"] == "refit"]
    assert refitted[-1]["step"] == phases[1].stop  # dearer each time, and yet to its end
    assert model.judged == list(range(len(refitted)))
    assert model.level.item() == model.judged[-1]  # not what it was corrected to, which nobody measured


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, again = trained()[0], trained()[0]
    other = trained(settings=SETTINGS.model_copy(update={"seed": 4}))[0]
    assert weights(first) == weights(again) != weights(other)


def test_training_leaves_the_process_as_it_was(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    handler = signal.getsignal(signal.SIGINT)
    trained()
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert signal.getsignal(signal.SIGINT) is handler
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_trainings_of_two_threads_take_turns() -> None:
    """What a training sets for itself holds until it ends, whoever else trains in the process."""
    alone = weights(trained(total=60)[0])
    second_began, first_ended = threading.Event(), threading.Event()
    seen: list[tuple[bool, int]] = []
    models: list[Toy] = []

    def look(_: Any) -> None:
        second_began.set()
        first_ended.wait(30)
        level = logging.getLogger("lightning.pytorch").level
        seen.append((torch.are_deterministic_algorithms_enabled(), level))

    second = threading.Thread(target=lambda: models.append(trained(total=60, on_progress=look)[0]))

    def begin(_: Any) -> None:
        if second.ident is None:
            second.start()
            second_began.wait(0.3)

    trained(total=60, on_progress=begin)
    first_ended.set()
    second.join()
    assert set(seen) == {(True, logging.ERROR)}
    assert weights(models[0]) == alone


def test_the_encoder_stays_as_it_is_once_it_is_refitted() -> None:
    seen: dict[str, list[bytes]] = {}
    model = Toy()

    def note(state: dict[str, Any]) -> None:
        seen.setdefault(state["phase"], []).append(weights(model.encoder))

    phases = schedule.phases(TOTAL, SETTINGS.refit_share)
    run(model, toy_rows(), SETTINGS, total=TOTAL, phases=phases, on_progress=note)
    assert len(set(seen["joint"])) > 10
    assert len(set(seen["refit"] + seen["quantise"])) == 1


def test_progress_names_step_phase_and_speed() -> None:
    seen: list[dict[str, Any]] = []
    trained(on_progress=seen.append)
    assert set(seen[0]) == {"step", "steps", "phase", "loss", "bits", "rows_per_second"}
    assert seen[-1]["step"] == seen[-1]["steps"] == TOTAL
    assert seen[-1]["phase"] == "quantise"
    assert seen[-1]["rows_per_second"] > 0


class Worsening(Toy):
    """Its validation is best at the 40th step of training and gets worse from there."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.best = 0, b""

    def loss(self, batch: dict[str, Tensor], **more: Any) -> dict[str, Tensor]:
        self.steps += 1
        return super().loss(batch, **more)

    def validation_bits(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.steps == 40:
            self.best = weights(self)
        return {"column_bits": torch.full((len(batch["x"]),), float(abs(self.steps - 40)))}


def test_a_phase_that_no_longer_improves_ends_and_its_best_weights_are_taken_up() -> None:
    model = Worsening()
    settings = SETTINGS.model_copy(update={"patience": 3})
    phases = schedule.phases(1000, 0.5)[:1]
    history = run(model, toy_rows(), settings, total=1000, phases=phases)
    assert [entry["step"] for entry in history] == [20, 40, 60, 80, 100]
    assert weights(model) == model.best != b""


def test_a_later_phase_keeps_what_it_was_handed_if_it_cannot_improve_on_it() -> None:
    model = Worsening()
    settings = SETTINGS.model_copy(update={"patience": 3})
    run(model, toy_rows(), settings, total=1000, phases=schedule.phases(1000, 0.5))
    assert weights(model) == model.best != b""
    assert model.steps == 100 + 60 + 60


class Shifting(Toy):
    """Each validation is worse than the one before as it was weighed, and better as all are weighed at its time."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def loss(self, batch: dict[str, Tensor], **more: Any) -> dict[str, Tensor]:
        self.steps += 1
        return super().loss(batch, **more)

    def validation_bits(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"column_bits": torch.full((len(batch["x"]),), 1000.0 - self.steps)}

    def objective(self, bits: Mapping[str, float]) -> float:
        return (1 + self.steps) * bits["column_bits"]


def test_an_objective_that_changes_compares_with_itself() -> None:
    model = Shifting()
    history = run(
        model,
        toy_rows(),
        SETTINGS.model_copy(update={"patience": 1}),
        total=200,
        phases=schedule.phases(200, 0.5)[:1],
    )
    assert [entry["bits"] for entry in history] == sorted(entry["bits"] for entry in history)
    assert history[-1]["step"] == schedule.phases(200, 0.5)[0].stop


@pytest.mark.parametrize(
    ("asked", "phase", "peaks"),
    [
        ({}, "joint", [0.002, 0.02]),
        ({"decoder_lr": 0.3}, "joint", [0.002, 0.3]),
        ({"encoder_lr": 0.1}, "joint", [0.1, 0.02]),
        ({"encoder_lr": 0.1}, "refit", [0.02]),
    ],
)
def test_the_optimiser_learns_at_the_models_rates_unless_others_are_asked_for(
    asked: dict[str, float], phase: schedule.PhaseName, peaks: list[float]
) -> None:
    settings = SETTINGS.model_copy(update=asked)
    module = PhaseModule(Toy(), schedule.Phase(phase, 0, 10), 10, State(), settings)
    optimiser = module.configure_optimizers()
    assert [group["peak"] for group in optimiser.param_groups] == peaks


def test_a_training_that_diverges_at_once_says_so() -> None:
    rows = toy_rows()
    rows.arrays["x"][:] = np.nan
    message = (
        "training diverged before step 130: the loss is not a finite number; "
        r"set encoder_lr below 0\.002 and decoder_lr below 0\.02"
    )
    with pytest.raises(ModelError, match=f"^{message}$"):
        trained(rows)


def test_no_rows_to_train_on_is_an_error() -> None:
    nothing = np.empty(0, np.int64)
    with pytest.raises(ModelError, match=r"^there are no rows to train on; give a larger table$"):
        trained(Rows({"x": np.zeros((3, 4), np.float32)}, nothing, np.arange(3)))


def test_one_row_is_enough() -> None:
    rows = Rows({"x": np.ones((1, 4), np.float32)}, np.zeros(1, np.int64), np.empty(0, np.int64))
    assert trained(rows)[1][-1]["bits"] < 1


def test_ctrl_c_stays_ctrl_c() -> None:
    handler = signal.getsignal(signal.SIGINT)

    def stop(_: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(on_progress=stop)
    assert signal.getsignal(signal.SIGINT) is handler


def test_batches_visit_every_row_once_an_epoch_wherever_they_start() -> None:
    rows = toy_rows(120)
    arrays = {"x": torch.arange(120)}
    whole = [batch["x"].tolist() for batch in Batches(arrays, rows.train_rows, 7, 25, range(12))]
    assert sorted(chain(*whole[:4])) == sorted(chain(*whole[4:8])) == rows.train_rows.tolist()
    assert whole[:4] != whole[4:8]
    for start in (1, 4, 6):
        assert [
            batch["x"].tolist() for batch in Batches(arrays, rows.train_rows, 7, 25, range(start, 12))
        ] == whole[start:]


class StopTrainingError(Exception):
    """Ends a training from its progress callback."""


def stopped(folder: Path, step: int, **more: Any) -> None:
    def stop(state: dict[str, Any]) -> None:
        if state["step"] >= step:
            raise StopTrainingError

    with pytest.raises(StopTrainingError):
        trained(folder=folder, on_progress=stop, **more)


@pytest.mark.parametrize("step", [20, 33, 60, 129, 135, 199])
def test_a_training_that_was_stopped_goes_on_to_the_same_weights_and_history(
    tmp_path: Path, step: int
) -> None:
    model, history = trained()
    stopped(tmp_path / "c", step)
    steps: list[int] = []
    resumed, resumed_history = trained(
        folder=tmp_path / "c", on_progress=lambda state: steps.append(state["step"])
    )
    assert weights(resumed) == weights(model)
    assert resumed_history == history
    assert steps[0] > step - 20


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    model, _ = trained(folder=tmp_path / "c")
    again, _ = trained(folder=tmp_path / "c", on_progress=lambda _: pytest.fail("trained again"))
    assert weights(again) == weights(model)


def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped(tmp_path / "c", 90)
    older, newest = sorted((tmp_path / "c").iterdir())
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    steps: list[int] = []
    resumed, _ = trained(folder=tmp_path / "c", on_progress=lambda state: steps.append(state["step"]))
    assert caplog.messages == [f"checkpoint {newest} is damaged; going on from the one before it"]
    assert steps[0] == int(older.stem) + 1
    assert weights(resumed) == weights(trained()[0])


def test_a_checkpoint_of_another_training_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped(tmp_path / "c", 30)
    other = Checkpoints(tmp_path / "c", "another key")
    assert other.newest() is None
    (file,) = (tmp_path / "c").iterdir()
    assert caplog.messages == [f"checkpoint {file} is of other data, settings or code and is not used"]


def test_the_key_of_a_training_changes_with_data_rows_and_settings() -> None:
    rows = toy_rows()
    one = rows.arrays["x"].copy()
    one[5, 2] += 1e-3
    others = [
        training_key(rows, "a"),
        training_key(rows, "b"),
        training_key(Rows({"x": one}, rows.train_rows, rows.validation_rows), "a"),
        training_key(Rows({"y": rows.arrays["x"]}, rows.train_rows, rows.validation_rows), "a"),
        training_key(Rows(rows.arrays, rows.train_rows[1:], rows.validation_rows), "a"),
    ]
    assert len(set(others)) == len(others)
    assert training_key(toy_rows(), "a") == others[0]


def test_checkpoints_hold_nothing_that_could_run_code(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "key")
    checkpoints.save(1, {"harm": time.sleep})
    with pytest.raises(UnpicklingError, match="Weights only load failed"):
        checkpoints.newest()


@pytest.fixture(autouse=True)
def _listening(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="vae")
