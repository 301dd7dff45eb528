"""Whether a new model may take the champion's place by itself: measured numbers in, a verdict with its reasons out."""

from __future__ import annotations

import math

from pydantic import Field

from flows.settings import GateSettings
from vae.settings import Settings


class Score(Settings):
    """One model on the held-out rows of one dataset, at the bounds of the run."""

    model_bytes: int = Field(ge=0)
    """Bytes of the model in an archive."""
    bits_per_row: float = Field(ge=0, allow_inf_nan=False)
    """Bits a held-out row costs: code and columns, the model not counted."""
    code_score: float = Field(allow_inf_nan=False)
    """What the code alone says of the columns, 0 to 1 (mean of clipped R² and of accuracy above the majority)."""
    dead_latents: float = Field(default=0.0, ge=0, le=1)
    """Share of latents that never vary on the held-out rows."""
    ratio: float = Field(default=0.0, ge=0)
    """Source bytes over archive bytes."""

    def total_bytes(self, rows: int) -> float:
        """Bytes for a dataset of so many rows: the model once, and every row at the held-out price."""
        return self.model_bytes + self.bits_per_row * rows / 8


class Verdict(Settings):
    """What the gate said."""

    promote: bool
    """Whether the challenger becomes the champion."""
    reasons: tuple[str, ...]
    """Why, one line for each test that decided."""

    @property
    def text(self) -> str:
        """The reasons in one line, for a tag."""
        return "; ".join(self.reasons)


def decide(
    challenger: Score,
    champion: Score | None,
    *,
    rows: int,
    settings: GateSettings,
    obstacle: str | None = None,
    compared_score: float | None = None,
    bits_error: float = 0.0,
) -> Verdict:
    """Judge a challenger; both scores are of the same held-out rows at the same bounds.

    `obstacle` is what forbids a promotion by itself whatever the numbers say: a changed schema, other bounds, a
    version that was rolled back. The floors are for the challenger's own columns, whoever the champion is; where the
    champion codes others, `compared_score` is the challenger's code score on the columns of the champion's score.
    `bits_error` is the standard error of the difference of their bits a row (`vae.paired`).
    """
    against = [*_broken_floors(challenger, settings)]
    if obstacle:
        against.append(obstacle)
    if champion is None:
        if against:
            return Verdict(promote=False, reasons=tuple(against))
        return Verdict(promote=True, reasons=("no champion yet, and every floor holds",))
    new, old = challenger.total_bytes(rows), champion.total_bytes(rows)
    share = 1 - new / old if old else 0.0
    error = bits_error * rows / 8 / old if old else 0.0
    size = f"{new:,.0f} bytes against the champion's {old:,.0f} ({_compared(share, error)})"
    if not new < old * (1 - settings.margin):
        against.append(f"{size}: below the margin of {settings.margin:.2%}")
    elif share <= settings.standard_errors * error:
        against.append(f"{size}: not by {settings.standard_errors:g} standard errors, so perhaps by chance")
    mine = challenger.code_score if compared_score is None else compared_score
    code = f"code score {mine:.3f} against {champion.code_score:.3f}"
    if champion.code_score - mine > settings.code_score_drop:
        against.append(f"{code}: drops by more than {settings.code_score_drop}")
    if against:
        return Verdict(promote=False, reasons=tuple(against))
    return Verdict(promote=True, reasons=(size, code))


def _compared(saved: float, error: float) -> str:
    """What a share of bytes saved is called, with its standard error if there is one.

    >>> _compared(0.1042, 0), _compared(-0.002, 0.0013)
    ('10.42% smaller', '0.20% larger, standard error 0.13%')
    """
    words = f"{abs(saved):.2%} {'smaller' if saved >= 0 else 'larger'}"
    if math.isinf(error):
        return f"{words}, but on too few rows to be sure"
    return f"{words}, standard error {error:.2%}" if error else words


def _broken_floors(score: Score, settings: GateSettings) -> list[str]:
    broken: list[str] = []
    if score.ratio < settings.min_ratio:
        broken.append(f"ratio {score.ratio:.3f} is below the floor of {settings.min_ratio}")
    if score.code_score < settings.min_code_score:
        broken.append(f"code score {score.code_score:.3f} is below the floor of {settings.min_code_score}")
    if score.dead_latents > settings.max_dead_latents:
        broken.append(
            f"{score.dead_latents:.0%} of latents never vary, above the ceiling of {settings.max_dead_latents:.0%}"
        )
    return broken
