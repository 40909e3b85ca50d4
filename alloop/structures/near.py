"""Rows of numbers, asked which of them lie near another one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

Array = NDArray[np.float64]

TAIL = 1024  # rows that are compared one by one before they become a tree
AXES = 8  # principal components that a tree is built on
SAMPLE = 256  # rows that the principal components are found from
ROUNDING = 1e-12  # of the length of a row, for sums of products


@dataclass(frozen=True)
class _Tree:
    """Rows `start` to `stop`, less `centre` [columns], on orthonormal `axes` [columns, axes]."""

    start: int
    stop: int
    centre: Array
    axes: Array
    tree: KDTree


class NearRows:
    """Rows of equal length, and those within a distance of another row: all of them, and no others.

    A row added is compared one by one until there are `TAIL` such rows. These become a tree, and two trees of equal size become
    one (Bentley and Saxe 1980, J. Algorithms 1, 301): a row is put into a tree at most log2(rows / TAIL) + 1 times. A tree
    knows only the first principal components of its rows. A projection on orthonormal vectors makes no distance longer, so none
    within the radius is lost; what the tree finds is compared in full.
    """

    def __init__(self, columns: int) -> None:
        self._rows: Array = np.empty((16, columns))
        self._count = 0
        self._trees: list[_Tree] = []

    def __len__(self) -> int:
        return self._count

    def add(self, row: Array) -> None:
        """Append `row` [columns]."""
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[self._count] = row
        self._count += 1
        if self._count % TAIL == 0 and self._rows.shape[1]:
            self._plant()

    def within(self, row: Array, radius: float) -> NDArray[np.int64]:
        """Ascending indices of the rows at most `radius` (Euclidean) from `row` [columns]."""
        found = [_found(tree, row, radius) for tree in self._trees]
        found.append(np.arange(self._trees[-1].stop if self._trees else 0, self._count))
        indices = np.concatenate(found)
        differences = self._rows[indices] - row
        return indices[np.einsum("ij,ij->i", differences, differences) <= radius**2]

    def _plant(self) -> None:
        start = self._count - TAIL
        while self._trees and self._trees[-1].stop - self._trees[-1].start == self._count - start:
            start = self._trees.pop().start
        rows = self._rows[start : self._count]
        sample = rows[np.linspace(0, len(rows) - 1, SAMPLE).astype(int)]
        centre = sample.mean(axis=0)
        axes = np.linalg.svd(sample - centre, full_matrices=False)[2][:AXES].T
        self._trees.append(_Tree(start, self._count, centre, axes, KDTree((rows - centre) @ axes)))


def _found(tree: _Tree, row: Array, radius: float) -> NDArray[np.int64]:
    """Ascending indices of rows that may be within the radius."""
    centred = row - tree.centre
    reach = radius + ROUNDING * (radius + float(np.linalg.norm(centred)))
    places = tree.tree.query_ball_point(centred @ tree.axes, reach)
    return np.sort(np.array(places, dtype=np.int64)) + tree.start
