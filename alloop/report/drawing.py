"""Molecules as pictures: atoms and bonds laid on a plane by their principal axes, as text of an SVG figure."""

from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from numpy.typing import NDArray

from alloop.report.svg import INK, ORANGE, PAPER, draw
from alloop.structures.bonds import BOND_SCALE
from alloop.structures.structure import Structure

Array = NDArray[np.float64]

ATOM_SCALE = 0.45  # of a covalent radius
BOND_WIDTH_POINTS = 3.2
GAP_ANGSTROM = 0.9  # between two pictures
TILT_DEGREES = (25.0, 12.0)
GHOST = "#c3cbd4"
PATH_ANGSTROM = 0.7  # how long the longest way is drawn, where it is shorter


def attack_pictures(start: Structure, path: Sequence[Array]) -> str:
    """Three pictures of one attack, all seen from the same side: where it began, the way of each atom, where it ended.

    `path`: positions [A, 3] in Å from the start to the end, two or more. Short ways are drawn longer, all by one factor, which
    the picture names.
    """
    frames = np.asarray(path, dtype=np.float64)
    flat = (frames - frames[0].mean(axis=0)) @ principal_axes(frames[0]) @ _tilt()
    numbers, ends = start.numbers, (flat[0], flat[-1])
    factor = _magnification(frames)
    ways = flat[0] + factor * (flat - flat[0])
    pad = ATOM_SCALE * float(covalent_radii[numbers].max())
    drawn = np.concatenate([ways, ends])
    low, high = drawn[:, :, :2].min(axis=(0, 1)) - pad, drawn[:, :, :2].max(axis=(0, 1)) + pad
    width, height = high - low
    step = np.array([width + GAP_ANGSTROM, 0.0, 0.0])

    def paint(axes: Axes) -> None:
        draw_molecule(axes, numbers, ends[0])
        draw_molecule(axes, numbers, ends[0] + step, ghost=True)
        for atom in range(len(numbers)):
            way = ways[:, atom, :2] + step[:2]
            axes.plot(way[:, 0], way[:, 1], color=ORANGE, linewidth=1.4, zorder=40, solid_capstyle="round")
            axes.plot(*way[-1], "o", color=ORANGE, ms=3.2, mew=0, zorder=41)
        draw_molecule(axes, numbers, ends[1] + 2 * step)
        for place, name in enumerate(("start", "path" if factor == 1 else f"path, {factor} times as long", "end")):
            middle = (low[0] + high[0]) / 2 + place * step[0]
            axes.annotate(name, (middle, low[1]), xytext=(0, -4), textcoords="offset points", ha="center", va="top")
        axes.set_xlim(low[0], high[0] + 2 * step[0])
        axes.set_ylim(low[1] - 0.12 * height - 0.25, high[1])
        axes.set_aspect("equal")
        axes.axis("off")

    shape = (3 * width + 2 * GAP_ANGSTROM) / (1.12 * height + 0.25)
    return draw(
        "attack", "One attack: the molecule at its start, the way of each atom, and at its end", paint, size=_size(shape)
    )


def _tilt() -> Array:
    """A turn [3, 3] about x, then y: atoms that mirror each other do not hide behind one another."""
    (ca, cb), (sa, sb) = np.cos(np.deg2rad(TILT_DEGREES)), np.sin(np.deg2rad(TILT_DEGREES))
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, ca, sa], [0.0, -sa, ca]])
    return about_x @ np.array([[cb, 0.0, -sb], [0.0, 1.0, 0.0], [sb, 0.0, cb]])


def _magnification(frames: Array) -> int:
    """Of the ways in the middle picture."""
    longest = float(np.linalg.norm(frames - frames[0], axis=2).max())
    return max(int(PATH_ANGSTROM / longest), 1) if longest > 1e-3 else 1


def principal_axes(positions: Array) -> Array:
    """A proper rotation [3, 3] after which positions [A, 3] are widest in x, then y, and thinnest in z, towards the eye.

    The same for the same molecule: each axis points to where its farthest atom is.
    """
    centred = positions - positions.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=True)[2].T
    along = centred @ axes
    farthest = along[np.abs(along).argmax(axis=0), np.arange(3)]
    axes = axes * np.where(farthest < 0, -1.0, 1.0)
    axes[:, 2] *= np.sign(np.linalg.det(axes))
    return axes


def drawn_bonds(numbers: NDArray[np.int64], positions: Array) -> list[tuple[int, int]]:
    """Pairs within a bond's length of each other as they are drawn: images in neighbouring cells are not."""
    radii = covalent_radii[numbers]
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    first, second = np.nonzero(np.triu(distances < BOND_SCALE * (radii[:, None] + radii[None]), k=1))
    return list(zip(first.tolist(), second.tolist(), strict=True))


def draw_molecule(axes: Axes, numbers: NDArray[np.int64], positions: Array, *, ghost: bool = False) -> None:
    """Atoms as circles in the colours of their elements, bonds as lines between them; what is nearer hides what is behind.

    `positions` [A, 3] in Å with z towards the eye; a `ghost` is a pale sketch.
    """
    depth = np.argsort(np.argsort(positions[:, 2])) / max(len(numbers), 1)
    for i, j in drawn_bonds(numbers, positions):
        x, y = positions[[i, j], 0], positions[[i, j], 1]
        order = 10 + 10 * min(depth[i], depth[j]) - 0.1
        axes.plot(x, y, color=GHOST if ghost else "#5d6873", linewidth=BOND_WIDTH_POINTS, zorder=order, solid_capstyle="round")
    for atom, number in enumerate(numbers):
        radius = ATOM_SCALE * float(covalent_radii[number])
        face, edge = (PAPER, GHOST) if ghost else (_color(int(number)), INK)
        order = 10 + 10 * depth[atom]
        place = (float(positions[atom, 0]), float(positions[atom, 1]))
        axes.add_patch(Circle(place, radius, facecolor=face, edgecolor=edge, linewidth=0.9, zorder=order))
        if number != 1 and not ghost:
            dark = float(np.dot(_rgb(int(number)), (0.299, 0.587, 0.114))) < 0.55
            symbol = chemical_symbols[number]
            axes.text(*place, symbol, ha="center", va="center", size=7.5, color=PAPER if dark else INK, zorder=order + 0.05)


def _rgb(number: int) -> Array:
    return np.asarray(jmol_colors[number], dtype=np.float64)


def _color(number: int) -> str:
    """As Jmol has it."""
    red, green, blue = np.round(255 * _rgb(number)).astype(int)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _size(shape: float) -> tuple[float, float]:
    """Inches of a figure of that width over height: as wide as the page, not higher than a figure beside others."""
    width = min(9.6, 3.6 * shape)
    return width, max(width / shape, 1.2)
