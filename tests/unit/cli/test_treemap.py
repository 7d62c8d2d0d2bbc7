from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify.cli.treemap import Rectangle, squarified

PLACE = Rectangle(10, 20, 600, 400)
SIZES = st.lists(st.integers(1, 1 << 40), min_size=1, max_size=60).map(lambda sizes: sorted(sizes, reverse=True))


@given(SIZES)
def test_the_parts_fill_the_place_in_proportion(sizes: list[int]) -> None:
    made = squarified(sizes, PLACE)
    assert len(made) == len(sizes)
    for size, rectangle in zip(sizes, made, strict=True):
        assert rectangle.area == pytest.approx(PLACE.area * size / sum(sizes), rel=1e-6, abs=1e-3)
        assert rectangle.x >= PLACE.x - 1e-6
        assert rectangle.y >= PLACE.y - 1e-6
        assert rectangle.x + rectangle.width <= PLACE.x + PLACE.width + 1e-6
        assert rectangle.y + rectangle.height <= PLACE.y + PLACE.height + 1e-6


def test_the_example_of_the_paper() -> None:
    """Section 3.1: areas 6, 6, 4, 3, 2, 2, 1 in a rectangle of 6 by 4."""
    made = squarified([6, 6, 4, 3, 2, 2, 1], Rectangle(0, 0, 6, 4))
    assert [(round(one.width, 2), round(one.height, 2)) for one in made[:4]] == [
        (3, 2),
        (3, 2),
        (1.71, 2.33),
        (1.29, 2.33),
    ]


def test_nothing_and_no_room() -> None:
    assert squarified([], PLACE) == []
    assert squarified([1, 1], Rectangle(0, 0, 0, 5))[0].area == 0
