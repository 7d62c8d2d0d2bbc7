from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sconify.shield.regions import Region, RegionKind, RegionMap, ancestors

paths = st.lists(st.sampled_from(["a", "ab", "b", "lib"]), max_size=5).map(lambda parts: "/" + "/".join(parts))


def test_ancestors_end_at_the_root() -> None:
    assert list(ancestors("/usr/lib/x")) == ["/usr/lib/x", "/usr/lib", "/usr", "/"]
    assert list(ancestors("/")) == ["/"]


def test_whole_components_count() -> None:
    regions = RegionMap([Region("/app", RegionKind.ENCRYPTED, "x")])
    assert regions.region_of("/application") is None
    assert regions.region_of("/app/x") is not None
    assert regions.region_of("/app") is not None


@given(st.lists(paths, unique=True), paths)
def test_the_longest_prefix_wins(prefixes: list[str], path: str) -> None:
    regions = RegionMap(Region(prefix, RegionKind.HOST, prefix) for prefix in prefixes)
    covering = [prefix for prefix in prefixes if prefix == "/" or path == prefix or path.startswith(prefix + "/")]
    found = regions.region_of(path)
    assert (found.prefix if found else None) == max(covering, key=len, default=None)


def test_the_first_region_of_a_prefix_stays() -> None:
    regions = RegionMap()
    first = Region("/app", RegionKind.ENCRYPTED, "first")
    assert regions.add(first) is None
    assert regions.add(Region("/app", RegionKind.HOST, "second")) is first
    assert list(regions) == [first]
