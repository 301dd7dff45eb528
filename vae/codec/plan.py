"""What the integer model codes, in which order, and what each column may look at: the model's shape, as JSON.

Per row the latents are coded first, then the columns, each an `Item`. Every item sees the code, the items before it in
the same row, and the previous row's values of those items and of itself (latents see latents only, where the plan says
`above` all of the previous row: codes are readable without the columns). So reading the first k columns never touches
the streams behind them.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data.grid import MAX_SPAN, MAX_SYMBOL

MAX_ITEMS = 512
MAX_STATES = 3
MAX_OUTPUTS = 128
"""Outputs of an item, beside those of its states."""
FEW_OUTPUTS = 64
"""As many were the most before format version 4."""
MAX_EMBEDDED = 256
"""Columns with more symbols than this have no embedding of their own."""
MAX_PARENTS = 5
MAX_CONTEXTS = 4
MAX_LINEAR = 16
HISTORY_FEATURES = 6
MAX_TABLES = 256
"""Tables that remember, of all columns together."""
Int32 = Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)]
Parents = Annotated[tuple[int, ...], Field(max_length=MAX_PARENTS, fail_fast=True)]
BASES = ("center", "previous", "extrapolated", "linear", "recalled")


def _few(most: int, default: Any = ...) -> Any:
    """A field of at most this many entries, of which the first bad one is the last looked at."""
    return Field(default=default, max_length=most, fail_fast=True)


class Head(IntEnum):
    """How the network speaks of an item."""

    softmax = 0
    """One output a symbol."""
    mixture = 1
    """A mixture of logistics, each centred on a base plus a learned offset."""
    memory = 2
    """Which of several contexts' adaptive counts codes the symbol."""


class Linear(BaseModel):
    """A prediction from earlier items: (Σ now·x + Σ before·x_previous + own·previous + constant) / 2**16."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[int, ...] = _few(MAX_LINEAR)
    now: tuple[int, ...] = _few(MAX_LINEAR)
    before: tuple[int, ...] = _few(MAX_LINEAR)
    own: int
    constant: int

    @model_validator(mode="after")
    def _check(self) -> Linear:
        weights = (*self.now, *self.before, self.own)
        if not len(self.sources) == len(self.now) == len(self.before):
            raise ValueError("linear prediction: as many weights as sources")
        # of values below 2**31: 33 * 2**57 + 2**52 + 2**15 < 2**63, see `frontend.predict`
        if any(abs(w) > 1 << 26 for w in weights) or abs(self.constant) > 1 << 52:
            raise ValueError("linear prediction: a weight is out of range")
        return self


class Item(BaseModel):
    """One coded item: its symbols `low` .. `high`, its head, and what it looks at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    head: Head
    low: int = Field(ge=-MAX_SYMBOL, le=MAX_SYMBOL)
    high: int = Field(ge=-MAX_SYMBOL, le=MAX_SYMBOL)
    ordered: bool
    """Whether the symbols are magnitudes (numbers) or mere names."""
    states: tuple[Literal[1, 2, 3], ...] = _few(MAX_STATES, ())
    """States other than VALUE with an output of their own: those the training rows held."""
    center: Int32 = 0
    spread: int = Field(default=1, ge=1, le=1 << 30)
    """Multiplier of `value - center`, in 2**-16, that makes a feature of it."""
    history: bool = False
    """Whether a number also shows the steps of two rows further up, its last other value, and how long it has been what
    it is and was what it was before: format version 4."""
    bins: tuple[Int32, ...] = _few(63, ())
    """Thresholds of the embedded bins of a number with many symbols."""
    components: tuple[Literal[0, 1, 2, 3, 4], ...] = _few(8, ())
    """Base of each mixture component, an index into BASES."""
    unit: int = Field(default=0, ge=0, le=20)
    """Offsets of the mixture are in units of 2**unit symbols."""
    linear: Linear | None = None
    recall: tuple[int, ...] = _few(MAX_PARENTS, ())
    """Earlier items whose values, taken together, recall the last value seen with them."""
    contexts: tuple[Parents, ...] = _few(MAX_CONTEXTS, ())
    """Of a memory: the earlier items of each context, the most telling first; () counts all rows."""

    @property
    def span(self) -> int:
        """Number of symbols."""
        return self.high - self.low + 1

    @property
    def tables(self) -> int:
        """Tables that remember what the block has seen: one that recalls, and the contexts."""
        return bool(self.recall) + len(self.contexts)

    @property
    def outputs(self) -> int:
        """Outputs of the network: one a state with an output, then the head's."""
        head = {
            Head.softmax: self.span,
            Head.mixture: 3 * len(self.components),
            Head.memory: len(self.contexts) + 1,
        }
        return len(self.states) + head[self.head]

    @property
    def before(self) -> int:
        """Dense features known before the item is coded."""
        if not self.ordered:
            return 1 + 2 * len(self.contexts)
        known = 3 + HISTORY_FEATURES * self.history
        return known + (self.linear is not None) + 2 * bool(self.recall) + 2 * len(self.contexts)

    @property
    def after(self) -> int:
        """Dense features known once the item is coded."""
        return 4 + (self.linear is not None) + bool(self.recall) if self.ordered else 1

    @property
    def embedded_before(self) -> int:
        """Rows of the embedding of the previous row's symbol (the last is for a missing one), or 0."""
        small = self.head == Head.softmax or not self.ordered
        return self.span + 1 if small and self.span <= MAX_EMBEDDED else 0

    @property
    def embedded_after(self) -> int:
        """Rows of the embedding of the symbol or its bin, or 0."""
        if self.ordered and self.head != Head.softmax:
            return len(self.bins) + 2 if self.bins else 0
        return self.span + 1 if self.span <= MAX_EMBEDDED else 0

    @model_validator(mode="after")
    def _check(self) -> Item:
        if not 1 <= self.span <= MAX_SPAN:
            raise ValueError(f"column {self.name!r}: {self.span} symbols")
        if self.outputs > MAX_OUTPUTS + MAX_STATES:
            raise ValueError(f"column {self.name!r}: {self.outputs} outputs")
        if self.head == Head.mixture and not self.components:
            raise ValueError(f"column {self.name!r}: a mixture without components")
        if self.head == Head.memory and not self.contexts:
            raise ValueError(f"column {self.name!r}: a memory without contexts")
        if list(self.bins) != sorted(set(self.bins)) or list(self.states) != sorted(set(self.states)):
            raise ValueError(f"column {self.name!r}: bins and states must rise")
        if (3 in self.components and self.linear is None) or (4 in self.components and not self.recall):
            raise ValueError(f"column {self.name!r}: a component without its base")
        return self


class Plan(BaseModel):
    """The shape of an integer model: latents, columns in coding order, widths, and the weights' fixed point."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latents: int = Field(ge=0, le=256)
    reach: int = Field(default=5, ge=1, le=30)
    """Latents are integers from -reach to reach."""
    width: int = Field(ge=1, le=256)
    """Hidden width for columns."""
    prior_width: int = Field(default=16, ge=1, le=256)
    """Hidden width for latents."""
    fraction: int = Field(default=7, ge=4, le=10)
    """Weights are integers in units of 2**-fraction."""
    above: bool = False
    """Whether every latent sees all latents of the row above and may stay what it was: format version 3."""
    deep: bool = False
    """Whether the prior of the codes has one more layer: format version 4."""
    direct: bool = False
    """Whether the features known before an item is coded (not its embedding) also reach its own hidden layer, past the
    sum that all items share: format version 5."""
    fine: bool = False
    """Whether the share of a mixture's component is kept to 24 bits, and to 16 if not: format version 5."""
    columns: tuple[Item, ...] = _few(MAX_ITEMS)

    @model_validator(mode="after")
    def _check(self) -> Plan:
        for j, item in enumerate(self.columns):
            sources = [*(item.linear.sources if item.linear else ()), *item.recall]
            sources += [p for context in item.contexts for p in context]
            if any(not 0 <= s < j for s in sources):
                raise ValueError(f"column {item.name!r} looks at a column that is not before it")
            if item.linear and any(not self.columns[s].ordered for s in item.linear.sources):
                raise ValueError(
                    f"column {item.name!r}: a linear prediction from a column without magnitudes"
                )
        if self.above and not self.latents:
            raise ValueError("no latents that could see those of the row above")
        if self.deep and not self.latents:
            raise ValueError("no latents whose prior could have one more layer")
        if len({item.name for item in self.columns}) != len(self.columns):
            raise ValueError("a column stands twice in the model")
        if (tables := sum(item.tables for item in self.columns)) > MAX_TABLES:
            raise ValueError(f"{tables} tables that remember; at most {MAX_TABLES} are admitted")
        return self

    @property
    def names(self) -> list[str]:
        """Columns in coding order."""
        return [item.name for item in self.columns]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of weights, in the order in which they are stored."""
        d, w, v = self.latents, self.width, self.prior_width
        shapes: dict[str, tuple[int, ...]] = {}
        if d:
            shapes |= {
                "prior.before": (d, 1, v),
                "prior.after": (d, 2, v),
                "prior.bias": (d, v),
                "prior.head": (d, 2 * self.reach + 1, v),
                "prior.head_bias": (d, 2 * self.reach + 1),
                "code.after": (d, 2, w),
            }
        if self.above:
            shapes |= {"prior.above": (d, 2, v), "prior.same": (d, v), "prior.stay": (d,)}
        if self.deep:
            shapes |= {"prior.hidden": (d, v, v), "prior.hidden_bias": (d, v)}
        for item in self.columns:
            name = f"column.{item.name}"
            shapes |= {
                f"{name}.before": (item.before, w),
                f"{name}.direct": (item.before if self.direct else 0, w),
                f"{name}.after": (item.after, w),
                f"{name}.embed_before": (item.embedded_before, w),
                f"{name}.embed_after": (item.embedded_after, w),
                f"{name}.bias": (w,),
                f"{name}.hidden": (w, w),
                f"{name}.hidden_bias": (w,),
                f"{name}.head": (item.outputs, w),
                f"{name}.head_bias": (item.outputs,),
            }
        return {name: shape for name, shape in shapes.items() if np.prod(shape) > 0}
