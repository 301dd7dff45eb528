"""Machine code kept on disk is never older than any source it was made from."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numba.core.errors import NumbaError

from vae.codec import entropy, kernel, mixing
from vae.codec import jit as module
from vae.codec.jit import COMPILED, jit, jit_with_arrays

pytestmark = pytest.mark.skipif(not COMPILED, reason="nothing is kept of what is not compiled")


def stamp(function: Any) -> tuple[Any, str]:
    """What numba compares before it takes machine code from the disk."""
    return function._cache._cache_file._source_stamp


def test_kept_code_is_stamped_with_all_modules_it_was_made_from(monkeypatch: pytest.MonkeyPatch) -> None:
    own, sources = stamp(kernel.walk)
    assert sources == stamp(kernel.observe)[1] == module._sources()
    assert own
    read = Path.read_bytes
    for name in (
        "counts", "entropy", "frontend", "intervals", "mixing", "pixels", "plan", "shades", "surroundings", "vectors"
    ):  # fmt: skip
        changed = f"{name}.py"
        monkeypatch.setattr(Path, "read_bytes", lambda path, c=changed: read(path) + b"#" * (path.name == c))
        assert module._sources() != sources
    monkeypatch.undo()
    assert module._sources() == sources


def test_what_makes_no_arrays_counts_no_references() -> None:
    modules = [
        import_module(f"vae.codec.{name}")
        for name in (
            "counts",
            "entropy",
            "frontend",
            "intervals",
            "kernel",
            "mixing",
            "pixels",
            "surroundings",
        )
    ]
    found = [thing for module in modules for thing in vars(module).values()]
    loops = [thing for thing in found if hasattr(thing, "targetoptions")]
    assert {kernel.walk, kernel.observe, entropy.encode_ops, mixing.walk} <= set(loops)
    assert not any(function.targetoptions["_nrt"] for function in loops)

    def zeros(count: int) -> float:
        return np.zeros(count).sum()

    def ones(
        count: int,
    ) -> float:  # another one: machine code is kept by the function, not by how it was asked for
        return np.ones(count).sum()

    with pytest.raises(NumbaError, match="zeros"):
        jit(zeros)(3)
    assert jit_with_arrays(ones)(3) == 3


def test_without_a_place_to_keep_code_functions_are_compiled_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiler = cast(Any, module._njit)

    def nowhere(**options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return compiler(**options)

    monkeypatch.setattr(module, "_njit", nowhere)

    def triple(number: int) -> int:
        return 3 * number

    assert jit(triple)(7) == 21
