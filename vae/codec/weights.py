"""The integer model's weights as its loop takes them, and the proof that its sums cannot overflow."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from data.errors import ModelError
from vae.codec.frontend import FEATURE_MAX
from vae.codec.kernel import ACTIVATION_MAX, Weights
from vae.codec.plan import Plan

Longs = npt.NDArray[np.int64]
SUM_LIMIT = 1 << 31


def padded(plan: Plan, tensors: Mapping[str, npt.NDArray[np.int16]]) -> Weights:
    """The weights by the names of `Plan.shapes` as the loop takes them."""
    w, columns = plan.width, plan.columns
    n = len(columns)
    feats_before = max((item.before for item in columns), default=1)
    feats_after = max((item.after for item in columns), default=1)
    embedded = sum(item.embedded_before + item.embedded_after for item in columns)

    def empty(*shape: int) -> npt.NDArray[np.int32]:
        return np.zeros(shape, np.int32)

    def code(name: str, *shape: int) -> npt.NDArray[np.int32]:
        return tensors[name].astype(np.int32) if name in tensors else empty(*shape)

    def turned(matrices: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        return np.ascontiguousarray(matrices.transpose(0, 2, 1))

    v, k = plan.prior_width, 2 * plan.reach + 1
    weights = Weights(
        fraction=plan.fraction, reach=plan.reach, share_shift=0 if plan.fine else 8,
        prior_before=code("prior.before", 0, 1, v), prior_after=code("prior.after", 0, 2, v),
        prior_bias=code("prior.bias", 0, v), prior_head=turned(code("prior.head", 0, k, v)),
        prior_head_bias=code("prior.head_bias", 0, k), code_after=code("code.after", 0, 2, w),
        prior_above=code("prior.above", 0, 2, v), prior_same=code("prior.same", 0, v),
        prior_hidden=turned(code("prior.hidden", 0, v, v)), prior_hidden_bias=code("prior.hidden_bias", 0, v),
        prior_stay=code("prior.stay", 0),
        before=empty(n, feats_before, w), direct=empty(n if plan.direct else 0, feats_before, w),
        after=empty(n, feats_after, w), embedding=empty(max(1, embedded), w),
        bias=empty(n, w), hidden=empty(n, w, w), hidden_bias=empty(n, w),
        head=empty(1, w, max(1, sum(item.outputs for item in columns))),
        head_bias=empty(max(1, sum(item.outputs for item in columns))),
    )  # fmt: skip
    place = row = 0
    for j, item in enumerate(columns):
        name = f"column.{item.name}"
        weights.before[j, : item.before] = tensors[f"{name}.before"]
        if plan.direct:
            weights.direct[j, : item.before] = tensors[f"{name}.direct"]
        weights.after[j, : item.after] = tensors[f"{name}.after"]
        for part, size in (("embed_before", item.embedded_before), ("embed_after", item.embedded_after)):
            if size:
                weights.embedding[place : place + size] = tensors[f"{name}.{part}"]
                place += size
        weights.bias[j] = tensors[f"{name}.bias"]
        weights.hidden[j], weights.hidden_bias[j] = (
            tensors[f"{name}.hidden"].T,
            tensors[f"{name}.hidden_bias"],
        )
        weights.head[0, :, row : row + item.outputs] = tensors[f"{name}.head"].T
        weights.head_bias[row : row + item.outputs] = tensors[f"{name}.head_bias"]
        row += item.outputs
    return weights


def prove_sums(w: Weights) -> None:
    """ModelError where a largest possible |sum| of a layer, by its weights Σ|w| max|a| + |b|, leaves 31 bits."""

    def size(array: npt.NDArray[np.int32], axis: int | tuple[int, ...]) -> Longs:
        return np.abs(array.astype(np.int64)).sum(axis=axis)

    def top(array: npt.NDArray[np.int32]) -> Longs:
        return np.abs(array.astype(np.int64)).max(axis=0, initial=0)

    column_sum = FEATURE_MAX * (size(w.before, (0, 1)) + size(w.after, (0, 1)) + size(w.code_after, (0, 1)))
    column_sum = column_sum + (2 * len(w.bias) * top(w.embedding) + top(w.bias)) * 32
    shown = size(w.prior_before, (0, 1)) + size(w.prior_after, (0, 1)) + size(w.prior_above, (0, 1))
    prior_sum = FEATURE_MAX * shown + 32 * (size(w.prior_same, 0) + top(w.prior_bias))
    prior_hidden = (
        size(w.prior_hidden, 1) * ACTIVATION_MAX + np.abs(w.prior_hidden_bias.astype(np.int64)) * 256
    )
    hidden_sum = size(w.hidden, 1) * ACTIVATION_MAX + np.abs(w.hidden_bias.astype(np.int64)) * 256
    if w.direct.size:
        hidden_sum = hidden_sum + size(w.direct, 1) * (FEATURE_MAX << 3)  # shifted as in `kernel.walk`
    head_sum = size(w.head[0], 0) * ACTIVATION_MAX + np.abs(w.head_bias.astype(np.int64)) * 256
    prior_head = size(w.prior_head, 1) * ACTIVATION_MAX + np.abs(w.prior_head_bias.astype(np.int64)) * 256
    if w.prior_stay.size:
        prior_head = prior_head + np.abs(w.prior_stay.astype(np.int64))[:, None] * 256
    for layer, sums in {
        "first": column_sum, "hidden": hidden_sum, "head": head_sum, "prior": prior_sum,
        "prior hidden": prior_hidden, "prior head": prior_head,
    }.items():  # fmt: skip
        if sums.size and int(sums.max()) >= SUM_LIMIT:
            raise ModelError(f"the model's {layer} layer could overflow: its weights are too large")
