"""What a front-end says of how it hears news and tells its own, and what is known of the others."""

__all__ = ["Announcement", "Other"]


class Announcement:
    """How a front-end hears news, and how it tells its own, as the others are told.

    Attributes:
        address: What they dial to hear its news, empty if they cannot.
        listens: The sessions whose news it reads from their records.
        tells: Whether it writes its news to its record.
    """

    def __init__(self, address: str, listens: list[int], tells: bool) -> None:
        self.address: str = address
        self.listens: list[int] = listens
        self.tells: bool = tells

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Announcement):
            return NotImplemented
        return (self.address, self.listens, self.tells) == (other.address, other.listens, other.tells)

    def __hash__(self) -> int:
        return hash(self.address)


class Other:
    """Another front-end that lives, as it says how it hears and tells news.

    Attributes:
        session, address: Its session, and what is dialled to hear its news.
        listens: Whether it reads this front-end's record.
        tells: Whether it writes its news to a record.
    """

    def __init__(self, session: int, address: str, listens: bool, tells: bool) -> None:
        self.session: int = session
        self.address: str = address
        self.listens: bool = listens
        self.tells: bool = tells
