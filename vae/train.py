"""Training on Lightning, in phases, with exact resume.

Batch order, noise and learning rate are functions of seed and step (see `schedule`), so a checkpoint holds
the step, the weights and their mean, the optimiser and the early stopping, and a training that was killed ends with the
weights of one that was not, bit for bit, if as many threads share an operation.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.atomic import remove_tree
from data.errors import ModelError
from vae import beside, schedule
from vae.checkpoint import Checkpoints
from vae.images import ImageVAE
from vae.loop import (
    VALIDATION_ROWS,
    Batches,
    BatchModule,
    PhaseModule,
    Progress,
    Referee,
    Report,
    Rows,
    State,
    Trainable,
    learning_rates,
    pack,
    unpack,
    validate,
    validation_batches,
    weigh,
)
from vae.model import SparseVAE
from vae.schedule import Phase
from vae.settings import TrainSettings
from vae.texts import TextVAE

Model = SparseVAE | ImageVAE | TextVAE
M = TypeVar("M", bound=SparseVAE | ImageVAE | TextVAE)


def fit(
    make: Callable[[], M],
    rows: Rows,
    settings: TrainSettings,
    *,
    folder: str | Path | None = None,
    resume: bool = True,
    on_progress: Progress | None = None,
) -> tuple[M, dict[str, Any]]:
    """A trained model and the record of its training.

    With `folder`, the place where the model is going to be saved, checkpoints wait beside it, and with `resume` a
    training that was killed goes on from there, if it is of the same data, settings and code; `forget` removes them
    once the model is safe. `on_progress` is told `step`, `steps`, `phase`, `loss` (nats a row), `bits` (on validation
    rows, None at first) and `rows_per_second`.

    Raises:
        ModelError: There are no rows, or the training diverged.
        DataError: The folder cannot be written to.
    """
    with _one_at_a_time, torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        model = make()
    total = settings.steps or model.steps(len(rows.train_rows), settings.effort)
    asked, settings = settings, _resolved(settings, model)
    latent = model.layout.plan.latents > 0
    quantised = not latent or model.latents.refits
    settle = model.target is not None and model.target.what != "nonzeros"
    phases = schedule.phases(
        total, settings.refit_share, latent=latent, quantised=quantised, settle=settle and quantised
    )
    checkpoints = None
    if folder is not None:
        parts = (model.settings, asked.model_copy(update={"threads": 0}), model.layout)
        checkpoints = Checkpoints(
            _waiting(folder), training_key(rows, *(part.model_dump_json() for part in parts))
        )
        if not resume:
            checkpoints.clear()
    on = threads(settings, model.thread_rows)
    history = run(
        model, rows, settings,
        total=total, phases=phases, on=on, checkpoints=checkpoints, on_progress=on_progress,
    )  # fmt: skip
    record = _record(model.eval(), rows, settings, total, history) | {"threads": on.operation}
    return model, record


def forget(folder: str | Path) -> None:
    """Removes the checkpoints of the model in `folder`."""
    remove_tree(_waiting(folder))


def _waiting(folder: str | Path) -> Path:
    target = Path(folder).absolute()
    return target.with_name(f".{target.name}.training")


def _record(
    model: Model, rows: Rows, settings: TrainSettings, total: int, history: list[dict[str, Any]]
) -> dict[str, Any]:
    """What a trained model remembers of its training; nothing that two equal trainings would not share."""

    def plain(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {
        "steps": total,
        "train_rows": len(rows.train_rows),
        "validation_rows": len(rows.validation_rows),
        "data": rows.digest(),
        "learning_rates": _used(settings, model),
        "code": model.code_facts(_code_rows(rows, model.reads, settings.seed)),
        "target": _target(model, rows, settings),
        "torch": str(torch.__version__),
        "history": [{name: plain(value) for name, value in entry.items()} for entry in history],
    }


def _target(model: Model, rows: Rows, settings: TrainSettings) -> dict[str, Any] | None:
    """What was `asked` of the code, and what was `found` of the rows that validate; None where nothing was."""
    if model.target is None:
        return None
    parts = validation_batches(rows, _tensors(rows.arrays), settings.seed)
    sizes = [len(next(iter(part.values()))) for part in parts]
    found = np.average([model.came_to(part) for part in parts], weights=sizes)
    return {"asked": model.settings.target, "found": float(found)}


def _code_rows(rows: Rows, reads: Sequence[str], seed: int) -> dict[str, Tensor]:
    """What the encoder `reads` of the rows that validate."""
    read = _tensors({name: rows.arrays[name] for name in reads})
    (batch,) = validation_batches(rows, read, seed, chunk=VALIDATION_ROWS)
    return batch


def _tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    plain = {name: np.require(array, requirements=["C", "W"]) for name, array in arrays.items()}
    return {name: torch.from_numpy(array) for name, array in plain.items()}


def _used(settings: TrainSettings, model: Model) -> dict[str, float]:
    """Peak learning rates of what there is to train: without codes there is no encoder."""
    there = {str(group["name"]) for group in model.parameter_groups() if group["params"]}
    return {name: rate for name, rate in learning_rates(settings, model).items() if name in there}


def run(
    model: nn.Module,
    rows: Rows,
    settings: TrainSettings,
    *,
    total: int,
    phases: tuple[Phase, ...],
    on: Threads | None = None,
    checkpoints: Checkpoints | None = None,
    on_progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Trains the model in place through its phases and returns the history, one entry a validation.

    Raises `ModelError` if the loss is not finite before any weights were worth keeping.
    """
    if not len(rows.train_rows):
        raise ModelError("there are no rows to train on; give a larger table")
    packed = checkpoints.newest() if checkpoints else None
    if checkpoints and packed is None:
        checkpoints.clear()  # what is left there is of no use, and must not outlive what is
    state = unpack(packed, model) if packed else State()
    arrays = _tensors(rows.arrays)
    held = validation_batches(rows, arrays, settings.seed)
    size = settings.batch_rows or USUAL_BATCH
    report = Report(total, min(size, len(rows.train_rows)), on_progress)
    with _surroundings(on or threads(settings)):
        while state.phase < len(phases):
            phase = phases[state.phase]
            _begin(state, phase, model, held)
            batches = Batches(arrays, rows.train_rows, settings.seed, size, range(state.step, phase.stop))
            module = PhaseModule(model, phase, total, state, settings)
            referee = Referee(held, checkpoints, report)
            if len(batches):
                _trainer(settings, referee).fit(module, datamodule=BatchModule(batches))
            _end(state, model, settings)
            if checkpoints is not None:
                checkpoints.save(state.step, pack(state, model))
    return state.history


def _begin(state: State, phase: Phase, model: nn.Module, held: list[dict[str, Tensor]]) -> None:
    """Before a phase's first step; a later phase has to improve on the weights it was handed."""
    if state.step == phase.start:
        cast(Trainable, model).begin(phase.name, held[0])
    if state.step == phase.start and phase.start > 0:
        weigh(state, model, validate(model, held))


def _end(state: State, model: nn.Module, settings: TrainSettings) -> None:
    """Takes up the best weights of the phase and clears what belonged to it."""
    if not state.best:
        rates = learning_rates(settings, cast(Trainable, model))
        raise ModelError(
            f"training diverged before step {state.step}: the loss is not a finite number; "
            f"set encoder_lr below {rates['encoder']:g} and decoder_lr below {rates['decoder']:g}"
        )
    model.load_state_dict(state.best)
    state.phase += 1
    state.best_bits, state.stale, state.best, state.mean, state.optimiser = {}, 0, {}, {}, {}


def _trainer(settings: TrainSettings, referee: Referee) -> pl.Trainer:
    """A trainer that writes nothing and prints nothing: checkpoints and progress are ours."""
    return pl.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=1,
        gradient_clip_val=settings.clip_norm,
        callbacks=[referee],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


USUAL_BATCH = 512
THREAD_ROWS = 1_024
"""Rows of a batch that a thread is worth: on fewer the threads wait for one another more than they work."""


class Threads(NamedTuple):
    """What a training runs on."""

    operation: int
    """Threads that share an operation; what comes out depends on them in its last bits."""
    parts: int
    """Parts of a loss that are computed at once (`vae.beside`): two, if there are cores for it; changes nothing."""


def _resolved(settings: TrainSettings, model: Model) -> TrainSettings:
    """The settings with what the model says where they say nothing."""
    return settings.model_copy(update={"batch_rows": settings.batch_rows or model.batch_rows})


def threads(settings: TrainSettings, thread_rows: int = THREAD_ROWS) -> Threads:
    """How these settings make use of the machine.

    >>> threads(TrainSettings(threads=3)), threads(TrainSettings(batch_rows=512)).operation
    (Threads(operation=3, parts=1), 1)
    """
    if settings.threads:
        return Threads(settings.threads, 1)
    operation = min(cores(), max(1, (settings.batch_rows or USUAL_BATCH) // thread_rows))
    return Threads(operation, min(2, cores() // operation))


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_flags = cast(Any, torch.utils.deterministic)


_one_at_a_time = threading.Lock()
"""Torch's default generator and its switches are the process's own: models of several threads take turns."""


@contextlib.contextmanager
def _surroundings(on: Threads) -> Generator[None]:
    """Deterministic algorithms, the chosen threads and quiet Lightning; all put back as they were."""
    with _one_at_a_time, _switched(on):
        yield


@contextlib.contextmanager
def _switched(on: Threads) -> Generator[None]:
    threads_before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill = _flags.fill_uninitialized_memory
    quiet = logging.getLogger("lightning.pytorch")
    level = quiet.level
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    try:
        torch.set_num_threads(on.operation)
        torch.use_deterministic_algorithms(True)
        # a debugging aid that comes with the line above and takes 7% of the time
        _flags.fill_uninitialized_memory = False
        quiet.setLevel(logging.ERROR)
        with torch.random.fork_rng(), warnings.catch_warnings(), beside.threads(on.parts):
            warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated", FutureWarning)  # Lightning's own
            yield
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        raise KeyboardInterrupt from None  # Lightning would leave with status 1 and deaf to the next Ctrl-C
    finally:
        torch.set_num_threads(threads_before)
        torch.use_deterministic_algorithms(deterministic)
        _flags.fill_uninitialized_memory = fill
        quiet.setLevel(level)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)


def training_key(rows: Rows, *parts: str) -> str:
    """Names a training by its data, its settings, the code that trains and the version of the tensor library.

    A checkpoint of another key is of another training, and going on from it would end nowhere.
    """
    state = hashlib.sha256()
    folder = Path(__file__).parent
    # the codec's too: floats are trained as twins of what it computes
    sources = sorted([*folder.glob("*.py"), *folder.glob("codec/*.py")])
    for part in (rows.digest(), str(torch.__version__), *parts, *(source.read_text() for source in sources)):
        content = part.encode()
        state.update(len(content).to_bytes(8, "little") + content)
    return state.hexdigest()
