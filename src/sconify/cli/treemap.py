"""Areas that stand for sizes: a squarified treemap.

The algorithm is that of Bruls, Huizing and van Wijk, "Squarified Treemaps" (2000): rows are filled, the largest first,
as long as that brings their rectangles nearer to squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A place on the drawing, in its units."""

    x: float
    y: float
    width: float
    height: float

    @property
    def area(self) -> float:
        """Width times height."""
        return self.width * self.height

    def inset(self, edge: float, top: float) -> Rectangle:
        """Return what is left inside an edge, and a heading at the top."""
        return Rectangle(
            self.x + edge, self.y + top, max(0.0, self.width - 2 * edge), max(0.0, self.height - top - edge)
        )


def squarified(sizes: Sequence[float], place: Rectangle) -> list[Rectangle]:
    """Divide a rectangle.

    Args:
        sizes: What the parts stand for, all positive, the largest first.
        place: The rectangle.

    Returns:
        One rectangle for each size, in the same order; their areas are in the proportion of the sizes.
    """
    total = sum(sizes)
    if not sizes or total <= 0 or place.area <= 0:
        return [Rectangle(place.x, place.y, 0, 0) for _ in sizes]
    areas = [size * place.area / total for size in sizes]
    made: list[Rectangle] = []
    while len(made) < len(areas):
        side = min(place.width, place.height)
        rest = areas[len(made) :]
        count = 1
        while count < len(rest) and _worst(rest[: count + 1], side) <= _worst(rest[:count], side):
            count += 1
        row, place = _row(rest[:count], place)
        made += row
    return made


def _worst(areas: Sequence[float], side: float) -> float:
    """Return the largest ratio of the sides in a row along ``side``; 1 is a square."""
    total = sum(areas)
    return max(side * side * max(areas) / (total * total), total * total / (side * side * min(areas)))


def _row(areas: Sequence[float], place: Rectangle) -> tuple[list[Rectangle], Rectangle]:
    """Put areas along the shorter side; return them, and what is left of the place."""
    total = sum(areas)
    made: list[Rectangle] = []
    if place.width >= place.height:
        depth = min(total / place.height, place.width) if place.height else 0.0
        at = place.y
        for area in areas:
            length = area / depth if depth else 0.0
            made.append(Rectangle(place.x, at, depth, length))
            at += length
        return made, Rectangle(place.x + depth, place.y, place.width - depth, place.height)
    depth = min(total / place.width, place.height) if place.width else 0.0
    at = place.x
    for area in areas:
        length = area / depth if depth else 0.0
        made.append(Rectangle(at, place.y, length, depth))
        at += length
    return made, Rectangle(place.x, place.y + depth, place.width, place.height - depth)
