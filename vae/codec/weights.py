"""The integer model's weights as its loop takes them, and the proof that its sums cannot overflow."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from data.errors import ModelError
from vae.codec.frontend import FEATURE_MAX
from vae.codec.kernel import ACTIVATION_MAX, Weights
from vae.codec.plan import Plan
from vae.codec.vectors import LANES, rounded_up

Longs = npt.NDArray[np.int64]
SUM_LIMIT = 1 << 31


def padded(plan: Plan, tensors: Mapping[str, npt.NDArray[np.int16]]) -> Weights:
    """The weights by the names of `Plan.shapes` as the loop takes them."""
    w, v, k = rounded_up(plan.width), rounded_up(plan.prior_width), 2 * plan.reach + 1
    columns = plan.columns
    n = len(columns)
    feats_before = max((item.before for item in columns), default=1)
    feats_after = max((item.after for item in columns), default=1)
    embedded = sum(item.embedded_before + item.embedded_after for item in columns)
    outputs = max(1, sum(item.outputs for item in columns))

    def empty(*shape: int) -> npt.NDArray[np.int32]:
        return np.zeros(shape, np.int32)

    def code(name: str, *shape: int, turned: bool = False) -> npt.NDArray[np.int32]:
        """The weights of all latents, each with room for `shape`; of no latent where the plan has none of the name."""
        if name not in tensors:
            return empty(0, *shape)
        weights = tensors[name].transpose(0, 2, 1) if turned else tensors[name]
        return _placed(weights, empty(len(weights), *shape))

    weights = Weights(
        fraction=plan.fraction, reach=plan.reach, share_shift=0 if plan.fine else 8,
        prior_before=code("prior.before", 1, v), prior_after=code("prior.after", 2, v),
        prior_bias=code("prior.bias", v), prior_head=code("prior.head", v, rounded_up(k), turned=True),
        prior_head_bias=code("prior.head_bias", rounded_up(k)), code_after=code("code.after", 2, w),
        prior_above=code("prior.above", 2, v), prior_same=code("prior.same", v),
        prior_hidden=code("prior.hidden", v, v, turned=True), prior_hidden_bias=code("prior.hidden_bias", v),
        prior_stay=code("prior.stay"),
        before=empty(n, feats_before, w), direct=empty(n if plan.direct else 0, feats_before, w),
        after=empty(n, feats_after, w), embedding=empty(max(1, embedded), w),
        bias=empty(n, w), hidden=empty(n, w, w), hidden_bias=empty(n, w),
        # the last column's outputs may begin anywhere, and are read in whole vectors
        head=empty(1, w, outputs + LANES), head_bias=empty(outputs),
    )  # fmt: skip
    place = row = 0
    for j, item in enumerate(columns):
        name = f"column.{item.name}"
        _placed(tensors[f"{name}.before"], weights.before[j])
        if plan.direct:
            _placed(tensors[f"{name}.direct"], weights.direct[j])
        _placed(tensors[f"{name}.after"], weights.after[j])
        for part, size in (("embed_before", item.embedded_before), ("embed_after", item.embedded_after)):
            if size:
                _placed(tensors[f"{name}.{part}"], weights.embedding[place:])
                place += size
        _placed(tensors[f"{name}.bias"], weights.bias[j])
        _placed(tensors[f"{name}.hidden"].T, weights.hidden[j])
        _placed(tensors[f"{name}.hidden_bias"], weights.hidden_bias[j])
        _placed(tensors[f"{name}.head"].T, weights.head[0, :, row:])
        weights.head_bias[row : row + item.outputs] = tensors[f"{name}.head_bias"]
        row += item.outputs
    return weights


def _placed(tensor: npt.NDArray[np.int16], room: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Fills the first corner of `room` with `tensor`; returns `room`."""
    room[tuple(slice(size) for size in tensor.shape)] = tensor
    return room


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
    head_sum = (
        size(w.head[0, :, : len(w.head_bias)], 0) * ACTIVATION_MAX
        + np.abs(w.head_bias.astype(np.int64)) * 256
    )
    prior_head = size(w.prior_head, 1) * ACTIVATION_MAX + np.abs(w.prior_head_bias.astype(np.int64)) * 256
    if w.prior_stay.size:
        prior_head = prior_head + np.abs(w.prior_stay.astype(np.int64))[:, None] * 256
    for layer, sums in {
        "first": column_sum, "hidden": hidden_sum, "head": head_sum, "prior": prior_sum,
        "prior hidden": prior_hidden, "prior head": prior_head,
    }.items():  # fmt: skip
        if sums.size and int(sums.max()) >= SUM_LIMIT:
            raise ModelError(f"the model's {layer} layer could overflow: its weights are too large")
