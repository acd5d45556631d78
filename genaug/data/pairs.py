"""Pairs of images: which image of one source belongs to which of another, and both read as one."""

from genaug.data.patches import Size, in_words
from genaug.data.reading import Listing
from genaug.data.stacking import Pair, find_size
from genaug.errors import DataError


def pair_images(first: Listing, second: Listing) -> Listing:
    """Return the images of `first` with their partners, those of `second` of the same `Listing.key`, as `Pair`s.

    Labels and classes are those of `first`; the classes of `second` do not count. What could not be read of one of
    them when they were listed is left out with its partner.

    Raises:
        DataError: an image without a partner, or with several; while reading, a partner of another size.

    >>> import torch
    >>> def shots(value):
    ...     image = torch.full((1, 2, 2), value)
    ...     return Listing(torch.zeros(1).long(), ("image",), "{}".format, lambda place: image, lambda place: (2, 2))
    >>> pair_images(shots(0.25), shots(0.75)).read(0).second.mean()
    tensor(0.7500)
    """
    rows = _match(first, second)

    def name(index: int) -> str:
        here, there = rows[index]
        return f"{first.name(here)} (paired with {second.name(there)})"

    def check_sizes(index: int, sizes: tuple[Size, Size]) -> Size:
        if sizes[0] != sizes[1]:
            raise DataError(
                f"{name(index)}: both images of a pair must be of one size, got {in_words(sizes[0])} and "
                f"{in_words(sizes[1])} (height x width); cut both alike first"
            )
        return sizes[0]

    def read(index: int) -> Pair:
        here, there = rows[index]
        pair = Pair(first.read(here), second.read(there))
        check_sizes(index, (find_size(pair.first, first.name(here)), find_size(pair.second, second.name(there))))
        return pair

    def measure(index: int) -> Size:
        here, there = rows[index]
        return check_sizes(index, (first.measure(here), second.measure(there)))

    kept = [here for here, _ in rows]
    return Listing(
        labels=first.labels[kept],
        class_names=first.class_names,
        name=name,
        read=read,
        measure=measure,
        skipped=first.skipped + second.skipped,
        origins=None if first.origins is None else first.origins[kept],
    )


def _match(first: Listing, second: Listing) -> list[tuple[int, int]]:
    """Return the places of both images of each pair, in the order of the first ones."""
    here, there = _find_places(first, "data"), _find_places(second, "pairs")
    totals = [len(places) + len(listing.skipped) for places, listing in ((here, first), (there, second))]
    whole = not (first.skipped or second.skipped)
    if whole or totals[0] != totals[1]:  # else those without a partner are those whose partner was skipped
        _check_partners(first, here, there, names=("data", "pairs"))
        _check_partners(second, there, here, names=("pairs", "data"))
    return [(place, there[key]) for key, place in here.items() if key in there]


def _find_places(listing: Listing, source: str) -> dict[str | int, int]:
    places: dict[str | int, int] = {}
    for place in range(len(listing.labels)):
        key = listing.key(place)
        if key in places:
            raise DataError(
                f"{listing.name(place)}: images of {source} must differ in more than their ending to be paired, got "
                f"{listing.name(places[key])} too; rename or remove one"
            )
        places[key] = place
    return places


def _check_partners(
    listing: Listing, places: dict[str | int, int], others: dict[str | int, int], *, names: tuple[str, str]
) -> None:
    lonely = next((place for key, place in places.items() if key not in others), None)
    if lonely is not None:
        raise DataError(
            f"{listing.name(lonely)}: must have a partner in {names[1]}, of the same path below the folder but for its "
            f"ending, or at the same place of a list, table or data set, got none ({len(places)} images in {names[0]}, "
            f"{len(others)} in {names[1]}); add it, or remove this one"
        )
