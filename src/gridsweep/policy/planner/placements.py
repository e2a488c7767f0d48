"""The cheapest placements of equal windows on a path of intensities, by dynamic programming.

Time is divided into slots of one length from now on; a window occupies `span` slots of one device. The cost of the k
cheapest disjoint windows is convex in k, so several devices share windows by taking the cheapest next one anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gridsweep.carbon.traces import Column

Costs = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def cheapest(windows: Column, span: int, most: int, ends: Counts) -> Costs:
    """Return the cost of the k cheapest disjoint windows within `[t, end)`.

    `windows` has shape (slots,): the cost of the window that begins in a slot. The result has shape (most + 1, ends,
    slots + 1), indexed by k, end and the number of slots left at t; a window that does not fit costs
    `unplaced(windows)`.
    """
    slots = len(windows)
    high = unplaced(windows)
    costs = np.empty((most + 1, len(ends), slots + 1))
    costs[:, :, :span] = (high * np.arange(most + 1))[:, np.newaxis, np.newaxis]
    costs[0] = 0.0
    price = windows[slots - span :: -1] if span <= slots else windows[:0]
    begins = np.arange(slots - span, -1, -1)
    price = np.where(begins + span > ends[:, np.newaxis], high, price)
    for k in range(1, most + 1):
        here = costs[k, :, span:]
        np.add(price, costs[k - 1, :, : slots + 1 - span], out=here)
        np.minimum.accumulate(here, axis=1, out=here)
    return costs


def unplaced(windows: Column) -> float:
    """Return a cost above that of any placement; it scales with the windows."""
    return 1e4 * float(np.abs(windows).max(initial=0.0)) + 1e-6


def shared(marginals: Sequence[Costs], copies: Sequence[int], wanted: Counts) -> Column:
    """Return the total cost of the cheapest `wanted` windows over all devices, shape (ends,).

    `marginals` has one array of shape (k, ends) for each kind of device: the cost that its k-th window adds. `copies`
    counts the devices of a kind; `wanted` has one number for each end.
    """
    flat = np.concatenate(marginals)
    if len(wanted) == 1 and max(copies) == 1:
        return np.array([np.sort(flat[:, 0])[: int(wanted[0])].sum()])
    order = flat.argsort(axis=0, kind="stable")
    many = np.repeat(copies, [len(m) for m in marginals])[order]
    before = many.cumsum(axis=0) - many
    taken = (wanted - before).clip(0, many)
    total: Column = (taken * np.take_along_axis(flat, order, axis=0)).sum(axis=0)
    return total
