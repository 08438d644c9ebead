"""Which worker carries which streams after a change of the plan. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

Stream = tuple[str, str, str, str]  # venue, market, symbol, channel


def deal(wanted: Iterable[Stream], carried: Sequence[Collection[Stream]]) -> list[list[Stream]]:
    """Return the streams of each worker: each stays where it is, new ones fill the emptiest.

    An instrument's streams come together.

    Args:
        wanted: all streams of the new plan, each once.
        carried: what each worker carries now.
    """
    owner = {stream: index for index, streams in enumerate(carried) for stream in streams}
    home = {stream[:3]: index for stream, index in owner.items()}
    dealt: list[list[Stream]] = [[] for _ in carried]
    new: list[Stream] = []
    for stream in wanted:
        if stream in owner:
            dealt[owner[stream]].append(stream)
        else:
            new.append(stream)
    for stream in new:
        index = home.get(stream[:3])
        if index is None:
            index = home[stream[:3]] = min(range(len(dealt)), key=lambda one: len(dealt[one]))
        dealt[index].append(stream)
    return dealt
