"""The archive's decoder of images in floats: what `vae.codec.pixels` and `vae.codec.images` compute in integers.

p(image | code) pixel by pixel, each given those above it and to its left (van den Oord et al. 2016, as a small network
in place of a deep one: its weights are part of every archive, and it runs for each pixel on one core).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae.codec.pixels import COMPONENTS, PIXEL_ONE, PIXEL_TOP, PixelPlan
from vae.codec.shades import FACTOR_BITS, classes_of_counts, new_counts, seen_before
from vae.heads import counted_nats, mixture_nats
from vae.stencil import Tensors, activation, code_features, described, on_grid, whole_weights

FIRST_SCALE = 3.0
"""log2 of the symbols by which a component is off at the start."""


class PixelDecoder(nn.Module):
    """Features of a code, and the stencil; parameters by the names of `PixelPlan.shapes`."""

    def __init__(self, plan: PixelPlan) -> None:
        super().__init__()
        self.plan = plan
        shapes = plan.shapes()
        units, maps = plan.units, plan.maps

        def normal(name: str, std: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(shapes[name]) * std)

        self.first = normal("first", 1 / math.sqrt(plan.inputs))
        self.first_bias = nn.Parameter(torch.full(shapes["first_bias"], 0.3))
        self.row, self.column = normal("row", 0.02), normal("column", 0.02)
        if plan.layers:
            self.hidden = normal("hidden", math.sqrt(2 / units))
            self.hidden_bias = nn.Parameter(torch.full(shapes["hidden_bias"], 0.1))
        self.head = normal("head", 0.1 / math.sqrt(units))
        self.head_bias = nn.Parameter(_first_bias(plan))
        if plan.counted:
            self.seen = nn.Parameter(torch.zeros(shapes["seen"]))
        if plan.latents:
            self.seed = normal("seed", 1 / math.sqrt(plan.latents))
            self.seed_bias = nn.Parameter(torch.full(shapes["seed_bias"], 0.3))
            if "conv" in shapes:
                self.conv = normal("conv", math.sqrt(2 / (9 * maps)))
                self.conv_bias = nn.Parameter(torch.full(shapes["conv_bias"], 0.1))
        steps = [(0, -1), (-1, 0), (-1, -1), (-1, 1)]
        self.near = [plan.offsets.index(step) for step in steps]
        stride = plan.width + 2 * plan.side
        deltas = torch.tensor([dy * stride + dx for dy, dx in plan.offsets])
        self.register_buffer("deltas", deltas, persistent=False)
        self.stride = stride

    def weights(self, *, quantised: bool) -> Tensors:
        """All parameters by name; `quantised`: on the codec's grid, with a straight-through gradient."""
        return on_grid(self, self.plan.fraction, quantised=quantised)

    def description(self) -> Tensor:
        """About what the weights cost in an archive, in nats."""
        return described(self, self.plan.fraction)

    def integers(self) -> dict[str, npt.NDArray[np.int16]]:
        """The weights on the codec's grid."""
        whole = whole_weights(self, self.plan.fraction)
        return {name: np.ascontiguousarray(whole[name]) for name in self.plan.shapes()}

    def features(self, w: Tensors, code: Tensor) -> Tensor | None:
        """What the code says of each pixel: (batch, height, width, maps); None without a code."""
        plan = self.plan
        if not plan.latents:
            return None
        shown = code_features(code).flatten(1)
        height, width = plan.sizes[0]
        maps = activation(torch.addmm(w["seed_bias"], shown, w["seed"]))
        maps = maps.view(-1, height, width, plan.maps).permute(0, 3, 1, 2)
        for k, (height, width) in enumerate(plan.sizes[1:]):
            maps = maps.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :height, :width]
            kernel = w["conv"][k].view(3, 3, plan.maps, plan.maps).permute(3, 2, 0, 1)
            maps = activation(F.conv2d(maps, kernel, w["conv_bias"][k], padding=1))
        return maps.permute(0, 2, 3, 1)

    def nats(self, w: Tensors, images: Tensor, features: Tensor | None, places: Tensor) -> Tensor:
        """-log p of some pixels, all their channels together.

        images (batch, height, width, channels) of symbols, features as above, places (batch, pixels): y * width + x
        -> (batch, pixels).
        """
        plan = self.plan
        edged = F.pad(images, (0, 0, plan.side, plan.side, plan.up, 0)).flatten(1, 2)
        y, x = places // plan.width, places % plan.width
        at = (y + plan.up) * self.stride + x + plan.side
        # (batch, pixels, offsets, channels)
        beside = _taken(edged, at.unsqueeze(2) + self.get_buffer("deltas"))
        own = _taken(edged, at)
        beside, own, y, x = beside.flatten(0, 1), own.flatten(0, 1).int(), y.flatten(), x.flatten()
        told = [] if features is None else [_taken(features.flatten(1, 2), places).flatten(0, 1)]
        around = beside.flatten(1).to(torch.float32) * (PIXEL_TOP / (plan.levels - 1) / PIXEL_ONE)
        down, across = y * plan.places[0] // plan.height, x * plan.places[1] // plan.width
        near = beside[:, self.near].int()
        total = around.new_zeros(len(around))
        classes = self._classes(images, places) if plan.counted else None
        for c in range(plan.channels):
            earlier = own[:, : plan.channels - 1].to(torch.float32) * (
                PIXEL_TOP / (plan.levels - 1) / PIXEL_ONE
            )
            earlier = earlier * (torch.arange(plan.channels - 1, device=own.device) < c)
            shown = torch.cat([around, earlier, *told], 1)
            hidden = torch.addmm(w["first_bias"][c], shown, w["first"][c])
            hidden = hidden + w["row"][c].index_select(0, down) + w["column"][c].index_select(0, across)
            hidden = activation(hidden)
            for k in range(plan.layers):
                hidden = activation(torch.addmm(w["hidden_bias"][c, k], hidden, w["hidden"][c, k]))
            outputs = torch.addmm(w["head_bias"][c].unsqueeze(1), w["head"][c].T, hidden.T)
            bases, top = self._bases(near, own, y, x, c), plan.levels - 1
            if classes is None:
                total = total + mixture_nats(outputs, own[:, c].unsqueeze(0), bases, plan.unit, 0, top)
            else:
                factors = log_factors(w["seen"][c])
                found = torch.stack([factors[k][classes[c, k]] for k in range(plan.counted)])
                total = total + counted_nats(outputs, own[:, c], bases, plan.unit, top, found)
        return total.view_as(places)

    def _classes(self, images: Tensor, places: Tensor) -> Tensor:
        """Classes of the counts that are found at some pixels: (channels, counted bits, 2, batch * pixels)."""
        plan = self.plan
        flat = images.flatten(1)
        every = np.zeros((*flat.shape, plan.counted, 2), np.uint8)
        counts = new_counts(plan.channels, plan.counted, plan.levels)
        seen_before(flat.cpu().numpy(), plan.channels, counts, classes_of_counts(), every)
        found = torch.from_numpy(every).to(images.device)
        found = found.view(len(flat), -1, plan.channels * plan.counted * 2)
        taken = _taken(found, places).view(-1, plan.channels, plan.counted, 2)
        return taken.permute(1, 2, 3, 0).long()

    def _bases(self, near: Tensor, own: Tensor, y: Tensor, x: Tensor, c: int) -> Tensor:
        """What the mixture's components are centred on, (components, pixels); as `vae.codec.pixels` has it."""
        top = self.plan.levels - 1
        west, north, corner, other = near[..., c].unbind(1)
        inside, below = x > 0, y > 0
        left = torch.where(inside, west, north)  # outside, all is 0
        above = torch.where(below, north, left)
        corner = torch.where(below & inside, corner, above)
        if c:
            other = left + own[:, c - 1] - torch.where(inside, near[:, 0, c - 1], 0)
        else:
            other = torch.where(below & (x + 1 < self.plan.width), other, above)
        kinds = [
            torch.zeros_like(left),
            left,
            other.clamp(0, top),
            above,
            (left + above - corner).clamp(0, top),
        ]
        return torch.stack([kinds[kind] for kind in COMPONENTS])


def log_factors(logits: Tensor) -> Tensor:
    """Log of what classes of counts multiply by, the largest of each bit 1: (bits, classes), cut as the codec does."""
    factors = (logits - logits.amax(1, keepdim=True)).exp() * 2**FACTOR_BITS
    whole = factors.floor().clamp(min=1.0)
    return (factors + (whole - factors).detach()).log() - FACTOR_BITS * math.log(2)


def _taken(values: Tensor, places: Tensor) -> Tensor:
    """values (batch, places, features) at places (batch, ...) -> (batch, ..., features)."""
    start = torch.arange(len(values), device=values.device) * values.shape[1]
    flat = (places + start.view(-1, *(1,) * (places.dim() - 1))).flatten()
    return values.flatten(0, 1).index_select(0, flat).view(*places.shape, -1)


def _first_bias(plan: PixelPlan) -> Tensor:
    """Logits, offsets and scales at the start; the last two components begin beyond both ends."""
    count = len(COMPONENTS)
    bias = torch.zeros(plan.channels, 3, count)
    beyond = plan.levels / 2**plan.unit
    bias[:, 1, count - 2], bias[:, 1, count - 1] = -beyond, 2 * beyond
    bias[:, 2] = FIRST_SCALE
    return bias.flatten(1)
