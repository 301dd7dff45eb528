"""The training loop's parts: rows and batches, Lightning's module of one phase, early stopping, checkpointed state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, cast

import lightning.pytorch as pl
import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor, nn

from vae import schedule
from vae.averaging import averaged, follow
from vae.checkpoint import Checkpoints
from vae.schedule import Phase
from vae.settings import TrainSettings

Progress = Callable[[dict[str, Any]], None]
VALIDATION_ROWS = 8_192
VALIDATION_CHUNK = 4_096


class Trainable(Protocol):
    """What training asks of a model; `vae.model.SparseVAE` is one."""

    def begin(self, phase: str, batch: dict[str, Tensor]) -> None:
        """What weights owe to the data before the first step of a phase."""
        ...

    def loss(
        self, batch: dict[str, Tensor], *, progress: float, phase: str, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The `loss` to descend and the terms it is made of, nats per row."""
        ...

    def validation_bits(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Bits per row with hard codes, by part."""
        ...

    def objective(self, bits: Mapping[str, float]) -> float:
        """What training makes small, of mean `validation_bits`, as the model weighs their parts now."""
        ...

    def aims(self, phase: str) -> bool:
        """Whether in this phase training moves a weight or a threshold of its own towards a code of some size."""
        ...

    def correct(self, phase: str, batch: dict[str, Tensor]) -> None:
        """Moves a threshold, after a validation of which this is a batch."""
        ...

    @property
    def default_learning_rates(self) -> Mapping[str, float]:
        """Peak learning rates of the groups, for settings that name none."""
        ...

    def parameter_groups(self) -> list[dict[str, Any]]:
        """`name` and `params` of the group `encoder` (may be empty) and of the group `decoder`."""
        ...


@dataclass(frozen=True)
class Rows:
    """What a model trains on: arrays whose first axis is the table's rows, and which rows serve for what.

    Without validation rows it trains on all of them, and validation says nothing about generalisation.
    """

    arrays: Mapping[str, NDArray[Any]]
    train_rows: NDArray[np.int64]
    validation_rows: NDArray[np.int64]

    def digest(self) -> str:
        """Fingerprint of names, types, shapes and values: 128 bits, not cryptographic."""
        state = xxhash.xxh3_128()
        for name, array in sorted(
            [*self.arrays.items(), ("\0train", self.train_rows), ("\0valid", self.validation_rows)]
        ):
            state.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
            state.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
        return state.hexdigest()


@dataclass
class State:
    """Everything a training is, beside the weights: what a checkpoint holds."""

    step: int = 0
    phase: int = 0
    best_bits: dict[str, float] = field(default_factory=dict[str, float])
    stale: int = 0
    best: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    mean: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    optimiser: dict[str, Any] = field(default_factory=dict[str, Any])
    history: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


class Batches:
    """The batches of one phase from a step on: one `index_select` an array, no workers, no collation."""

    def __init__(
        self, arrays: Mapping[str, Tensor], rows: NDArray[np.int64], seed: int, size: int, span: range
    ) -> None:
        self.arrays, self.rows, self.seed, self.span = arrays, rows, seed, span
        self.size = min(size, len(rows))

    def __len__(self) -> int:
        return len(self.span)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        per_epoch, epoch, order = len(self.rows) // self.size, -1, self.rows
        for step in self.span:
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                order = schedule.batch_order(self.rows, self.seed, epoch)
            start = step % per_epoch * self.size
            chosen = torch.from_numpy(order[start : start + self.size])
            yield {name: array.index_select(0, chosen) for name, array in self.arrays.items()}


class BatchModule(pl.LightningDataModule):
    """Hands Lightning the batches of the phase."""

    def __init__(self, batches: Batches) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> Batches:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Any iterable of batches will do; with a length, Lightning fetches none ahead."""
        return self.batches


class PhaseModule(pl.LightningModule):
    """One phase of one training: Lightning runs its steps, `Referee` decides when it is over."""

    def __init__(
        self, model: nn.Module, phase: Phase, total: int, state: State, settings: TrainSettings
    ) -> None:
        super().__init__()
        self.model, self.phase, self.total, self.state, self.settings = model, phase, total, state, settings
        self.terms: dict[str, Tensor] = {}

    def on_train_start(self) -> None:
        """The optimiser of a checkpoint takes the place of the fresh one."""
        if self.state.optimiser:
            self.trainer.optimizers[0].load_state_dict(self.state.optimiser)

    def training_step(self, batch: dict[str, Tensor], _batch_idx: int) -> Tensor:
        """The loss of one batch, its noise and learning rate set from the step alone."""
        step = self.state.step
        seed = schedule.noise_seed(self.settings.seed, step)
        # for modules that draw from the global generators; `torch.manual_seed` notes its caller's whole stack, 1.5 ms
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        rate = schedule.learning_rate(step, self.phase)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate * group["peak"]
        generator = torch.Generator(self.device).manual_seed(seed)
        terms = cast(Trainable, self.model).loss(
            batch, progress=step / self.total, phase=self.phase.name, generator=generator
        )
        self.terms = {name: value.detach() for name, value in terms.items()}
        return terms["loss"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam with a rate for the encoder and one for the rest; a frozen encoder is left out altogether."""
        model = cast(Trainable, self.model)
        peaks = learning_rates(self.settings, model)
        groups: list[dict[str, Any]] = []
        for group in model.parameter_groups():
            name, parameters = str(group["name"]), list(group["params"])
            frozen = name == "encoder" and self.phase.name != "joint"
            for parameter in parameters:
                parameter.requires_grad_(not frozen)
            if parameters and not frozen:
                groups.append({"params": parameters, "peak": peaks[name], "lr": peaks[name]})
        return torch.optim.Adam(groups, betas=(0.9, 0.99), fused=True)


class Referee(pl.Callback):
    """Counts steps, validates, writes checkpoints, reports, and ends a phase that no longer improves.

    One in which the code is on its way to a target goes on to its end.
    """

    def __init__(self, held: list[dict[str, Tensor]], checkpoints: Checkpoints | None, report: Report):
        """`held`: the rows that validate."""
        self.held, self.checkpoints, self.report = held, checkpoints, report
        self.sums: dict[str, Tensor] = {}
        self.counted = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any
    ) -> None:
        """One step is done."""
        module = cast(PhaseModule, pl_module)
        state, terms = module.state, module.terms
        follow(state.mean, module.model, state.step - module.phase.start)
        state.step += 1
        self.counted += 1
        self.sums = {name: self.sums.get(name, 0.0) + value.cpu().double() for name, value in terms.items()}
        if state.step % schedule.interval(module.total) == 0 or state.step == module.phase.stop:
            with averaged(state.mean, module.model):
                self._judge(module)
            self._go_on(trainer, module)
        self.report(state, module.phase, terms["loss"])

    def _judge(self, module: PhaseModule) -> None:
        state = module.state
        bits = validate(module.model, self.held)
        means = {name: value.item() / self.counted for name, value in self.sums.items()}
        state.history.append({"step": state.step, "phase": module.phase.name, **means, **bits})
        model = cast(Trainable, module.model)
        if not model.aims(module.phase.name):
            weigh(state, module.model, bits)
        else:
            # the code is on its way to what is asked for: the last one is the nearest, whatever a row costs
            keep(state, module.model, bits)
            some = {name: value.to(module.device) for name, value in self.held[0].items()}
            model.correct(module.phase.name, some)
        self.sums, self.counted = {}, 0

    def _go_on(self, trainer: pl.Trainer, module: PhaseModule) -> None:
        """Or end, where it no longer improves; with the weights themselves, not their mean."""
        state = module.state
        if state.stale >= module.settings.patience or not math.isfinite(state.history[-1]["bits"]):
            trainer.should_stop = True
            state.step = module.phase.stop
        state.optimiser = trainer.optimizers[0].state_dict()
        if state.step < module.phase.stop and self.checkpoints is not None:
            self.checkpoints.save(state.step, pack(state, module.model))


class Report:
    """Tells `on_progress` about three hundred times a training how it stands."""

    def __init__(self, total: int, batch: int, on_progress: Progress | None) -> None:
        self.total, self.batch, self.on_progress = total, batch, on_progress
        self.every = max(1, total // 300)
        self.last_step, self.last_time = -1, time.perf_counter()

    def __call__(self, state: State, phase: Phase, loss: Tensor) -> None:
        """Reports the step just done, if its turn has come."""
        if self.on_progress is None or (state.step % self.every and state.step != phase.stop):
            return
        now, done = time.perf_counter(), state.step - self.last_step
        speed = self.batch * done / max(now - self.last_time, 1e-9) if self.last_step >= 0 else 0.0
        self.last_step, self.last_time = state.step, now
        bits = paid(state.history[-1]) if state.history else None
        self.on_progress({"step": state.step, "steps": self.total, "phase": phase.name, "loss": loss.item(),
                          "bits": bits, "rows_per_second": speed})  # fmt: skip


def paid(entry: Mapping[str, float]) -> float:
    """What a row costs in bits, of mean `validation_bits`: without what is asked of its code beside.

    >>> paid({"code_bits": 2.0, "column_bits": 5.0, "codes_only_bits": 9.0, "bits": 457.0})
    7.0
    """
    return entry.get("code_bits", 0.0) + entry["column_bits"] if "column_bits" in entry else entry["bits"]


def learning_rates(settings: TrainSettings, model: Trainable) -> dict[str, float]:
    """Peak learning rates of `encoder` and `decoder`: those of the settings, else the model's own."""
    asked = {"encoder": settings.encoder_lr, "decoder": settings.decoder_lr}
    default = model.default_learning_rates
    return {name: default[name] if rate is None else rate for name, rate in asked.items()}


def weigh(state: State, model: nn.Module, bits: dict[str, float]) -> None:
    """Keeps the weights if they are the best of the phase, else counts one validation without improvement.

    Both are weighed as the model weighs parts now: an objective that changes in training compares with itself.
    """
    objective = cast(Trainable, model).objective
    found = objective(bits)
    if math.isfinite(found) and not (state.best and objective(state.best_bits) <= found):
        keep(state, model, bits)
    else:
        state.stale += 1


def keep(state: State, model: nn.Module, bits: dict[str, float]) -> None:
    """Takes the weights for the best of the phase; not if they are of a training that diverged."""
    if math.isfinite(bits["bits"]):
        state.best_bits, state.stale = bits, 0
        state.best = {name: value.detach().clone() for name, value in model.state_dict().items()}


def pack(state: State, model: nn.Module) -> dict[str, Any]:
    """State and weights as a checkpoint holds them."""
    return {**{item.name: getattr(state, item.name) for item in fields(State)}, "weights": model.state_dict()}


def unpack(packed: dict[str, Any], model: nn.Module) -> State:
    """Puts the weights of a checkpoint into the model and returns the state beside them."""
    model.load_state_dict(packed["weights"])
    return State(**{item.name: packed[item.name] for item in fields(State)})


@torch.no_grad()
def validate(model: nn.Module, batches: list[dict[str, Tensor]]) -> dict[str, float]:
    """Mean bits per row with hard codes, by part and in all (`bits`), over fixed batches."""
    device = next(model.parameters()).device
    sums: dict[str, float] = {}
    total = 0
    model.eval()
    for batch in batches:
        rows = len(next(iter(batch.values())))
        found = cast(Trainable, model).validation_bits(
            {name: value.to(device) for name, value in batch.items()}
        )
        total += rows
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + float(value.cpu().double().mean()) * rows
    model.train()
    means = {name: value / total for name, value in sums.items()}
    return {**means, "bits": cast(Trainable, model).objective(means)}


def validation_batches(
    rows: Rows, arrays: Mapping[str, Tensor], seed: int, chunk: int = VALIDATION_CHUNK
) -> list[dict[str, Tensor]]:
    """A fixed choice of validation rows, of training rows if there are none, in chunks from all over it."""
    held = rows.validation_rows if len(rows.validation_rows) else rows.train_rows
    chosen = np.sort(schedule.batch_order(held, seed, 2**63)[:VALIDATION_ROWS])
    count = -(-len(chosen) // chunk)
    chunks = [torch.from_numpy(chosen[first::count]) for first in range(count)]
    return [{name: array.index_select(0, part) for name, array in arrays.items()} for part in chunks]
