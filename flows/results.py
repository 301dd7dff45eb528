"""What the steps of a retraining hand on: small, frozen, JSON; tables and models stay on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.gate import Finding
from vae.settings import NEAR_TARGET, Settings, Target

COLLAPSED = (
    "the code has collapsed (posterior collapse): it is the same for every row and says nothing of one; train longer, "
    "or ask for more: --codes rich"
)


class Aim(Settings):
    """What was asked of a code, and what it came to.

    >>> print(Aim(asked="bits=8", found=8.2), Aim(asked="bits=8", found=8.2).missed)
    bits=8, found 8.2 None
    >>> print(Aim(asked="bits=8", found=12.0).missed)
    bits=8 was asked of the code, and it came to 12 (50% above): train longer (--effort, --steps), ask for more, \
or take another --family
    """

    asked: str
    """As `--target` has it."""
    found: float
    """Mean over rows."""

    def __str__(self) -> str:
        return f"{self.asked}, found {self.found:.3g}"

    @property
    def missed(self) -> str | None:
        """What to say of a code that is further off than it may be."""
        miss = Target.parse(self.asked).miss(self.found)
        if abs(miss) <= NEAR_TARGET:
            return None
        far, other = ("below", "less") if miss < 0 else ("above", "more")
        return (
            f"{self.asked} was asked of the code, and it came to {self.found:.3g} ({abs(miss):.0%} {far}): train "
            f"longer (--effort, --steps), ask for {other}, or take another --family"
        )

    @classmethod
    def words(cls, target: Mapping[str, Any] | None) -> str:
        """A sentence for a page, of the target in a model's record.

        >>> Aim.words({"asked": "bits=8", "found": 8.2})
        'Its training was asked for bits=8, and came to 8.2 on the rows that validate.'
        >>> Aim.words({"asked": "bits=8", "found": 12.0})
        'Its training was asked for bits=8, and came to 12 on the rows that validate, 50% off.'
        >>> Aim.words(None)
        ''
        """
        if target is None:
            return ""
        aim = cls(**target)
        off = f", {abs(Target.parse(aim.asked).miss(aim.found)):.0%} off" if aim.missed else ""
        return f"Its training was asked for {aim.asked}, and came to {aim.found:.3g} on the rows that validate{off}."


class Ingested(Settings):
    """A dataset on disk."""

    path: Path
    """Its folder."""
    digest: str
    """SHA-256 of its content."""
    schema_digest: str
    """SHA-256 of its schema, which says more than the content: kinds, spellings of null, text formats, CSV dialect."""
    rows: int
    """Its rows."""
    source_bytes: int
    """Bytes of the source, as text where it is text: what ratios are of."""

    @property
    def inputs(self) -> dict[str, str]:
        """What a step that reads this dataset depends on."""
        return {"data": self.digest, "schema": self.schema_digest}


class Checked(Settings):
    """Data that passed its gate."""

    bounds: dict[str, float]
    """Absolute error bounds of the columns that need not be exact."""
    findings: tuple[Finding, ...]
    """What the gate found; one that did not pass was let through by `allow_schema_change`."""
    against: str
    """The champion whose data it was compared with, as `models:/NAME/VERSION`; empty where there was none."""


class Trained(Settings):
    """A model on disk, and the run it was trained in."""

    path: Path
    """Its folder."""
    digest: str
    """SHA-256 of weights and description."""
    seconds: float
    """Time it took to train."""
    checked: Checked
    """What the data gate found before it was trained; a later run of the same compares with its own champion."""
    collapsed: bool = False
    """Whether its code is the same for every row."""
    target: Aim | None = None
    """What was asked of its code."""


class Coded(Settings):
    """Sparse codes on disk."""

    path: Path
    """The Parquet file."""
    digest: str
    """SHA-256 of its bytes."""
    latents: int = 0
    """Width of a code."""
    mean_nonzero: float = 0.0
    """Latents that are not zero, mean over the rows."""
    dead_latents: float = 0.0
    """Latents that never vary."""
    bits_per_row: float = 0.0
    """What a code costs as an archive writes it."""


class Archived(Settings):
    """An archive on disk."""

    path: Path
    """The file."""
    digest: str
    """SHA-256 of its bytes."""
    bytes: int
    """Its size."""
    ratio: float
    """Source bytes over its size."""


class Evaluated(Settings):
    """Numbers and figures on disk."""

    path: Path
    """Their folder."""
    digest: str
    """SHA-256 of the numbers."""
    numbers: dict[str, Any]
    """The numbers, nested by part."""
    figures: tuple[Path, ...]
    """PNG files."""


class Measured(Settings):
    """A point of a curve."""

    share: float
    """The bound, as a share of the range."""
    bits: dict[str, float]
    """Bits a row, by tool."""


class Curved(Settings):
    """Bits a row over several bounds, on disk."""

    path: Path
    """The JSON file."""
    points: tuple[Measured, ...]
    """One a bound, the tightest first."""
    given: Measured
    """That of the run's own archive."""
    images: bool
    """Whether bounds are those of images."""


class Registered(Settings):
    """A version in the registry."""

    name: str
    """Registered model."""
    version: int
    """Its number."""
    promoted: bool
    """Whether it is the champion now."""
    reasons: tuple[str, ...]
    """What the gate said."""
    is_new: bool
    """Whether this run made the version."""


class Outcome(Settings):
    """Everything that a retraining made, or found made."""

    dataset: Path
    """Folder of the ingested dataset."""
    model: Path
    """Folder of the model."""
    codes: Path
    """The sparse codes."""
    archive: Path
    """The archive."""
    figures: Path
    """Folder of numbers and figures."""
    rows: int
    """Rows of the dataset."""
    archive_bytes: int
    """Size of the archive."""
    ratio: float
    """Source bytes over archive bytes."""
    version: Registered
    """The version in the registry."""
    run_id: str
    """The run in MLflow."""
    collapsed: bool = False
    """Whether the model's code is the same for every row."""
    target: Aim | None = None
    """What was asked of the model's code."""
    curve: Path | None = None
    """Bits a row over several bounds, if they were asked for."""

    @classmethod
    def of(
        cls,
        dataset: Ingested,
        model: Trained,
        codes: Coded,
        archive: Archived,
        report: Evaluated,
        version: Registered,
        run_id: str,
        curve: Curved | None = None,
    ) -> Outcome:
        """From the results of the tasks."""
        return cls(
            dataset=dataset.path,
            model=model.path,
            codes=codes.path,
            archive=archive.path,
            figures=report.path,
            rows=dataset.rows,
            archive_bytes=archive.bytes,
            ratio=archive.ratio,
            version=version,
            run_id=run_id,
            collapsed=model.collapsed,
            target=model.target,
            curve=curve.path if curve else None,
        )
