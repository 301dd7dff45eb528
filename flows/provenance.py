"""Where a run comes from: the code's commit, the packages' versions, the flow run it belongs to."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path

NAMED = (
    "sparse-vae",
    "torch",
    "lightning",
    "numpy",
    "numba",
    "pandas",
    "pyarrow",
    "pcodec",
    "mlflow",
    "prefect",
)
"""Distributions whose versions become tags; the complete list is an artifact of the run."""


def git_state(folder: Path | None = None) -> dict[str, str]:
    """Commit and dirty flag of the sources that run; `unknown` where they are not a git checkout."""
    folder = folder or Path(__file__).parent
    # An installed copy may lie inside somebody's repository, in a virtual environment: that commit is not ours.
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return {"commit": "unknown", "dirty": "unknown"}
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", ":/")
    added = _git(folder, "ls-files", "--others", "--exclude-standard", ":/data", ":/vae", ":/flows")
    dirty = "unknown" if changes is None else str(bool(changes or added)).lower()
    return {"commit": commit or "unknown", "dirty": dirty}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def packages() -> dict[str, str]:
    """Version of every installed distribution."""
    found = {str(d.metadata["Name"]): str(d.version) for d in metadata.distributions() if d.metadata["Name"]}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def named_versions() -> dict[str, str]:
    """Versions of the distributions that decide what a run makes."""
    installed = packages()
    return {name: installed[name] for name in NAMED if name in installed}


def pinned(*names: str) -> list[str]:
    """`name==version` of distributions, as a model version asks for them."""
    return [f"{name}=={metadata.version(name)}" for name in names]
