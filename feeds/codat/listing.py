"""Whether the pages of a listing add up: a listing is complete or it raises."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .errors import IncompleteListing

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class ListingProgress(Generic[K]):
    """How far a paged listing has been read; `K` stands for one object's identity.

    The total may grow while we read, but not shrink: objects that moved to a page already read would be missed.
    """

    seen: set[K] = field(default_factory=set, repr=False)
    total: int | None = None
    next_page: int = 1
    _stuck: bool = False

    def take(self, identities: Iterable[K], *, total: int, has_next: bool) -> list[K]:
        """Note the next page; those on it that no earlier page had. Raises IncompleteListing when the list shrank."""
        fresh = [identity for identity in dict.fromkeys(identities) if identity not in self.seen]
        if self.total is not None and total < self.total:
            raise IncompleteListing("GET of a listing: the list shrank while it was read")
        self.seen.update(fresh)
        self.total = total
        self.next_page += 1
        self._stuck = not fresh or not has_next
        return fresh

    @property
    def is_complete(self) -> bool:
        """Whether every object was seen: only then may anything be concluded from what is missing."""
        return len(self.seen) == self.total

    def check(self) -> None:
        """Raises IncompleteListing when no further page can complete the list."""
        if self._stuck and not self.is_complete:
            raise IncompleteListing(f"GET of a listing: {len(self.seen)} of {self.total} objects read")
