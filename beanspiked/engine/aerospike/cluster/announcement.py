"""How front-ends hear news and tell their own: what each announces of itself, and what is known of the others."""

__all__ = ["Announcement", "Other"]


class Announcement:
    """What a front-end announces: how it hears news, and how it tells its own.

    Attributes:
        address: The address that others dial to hear its news; empty if they cannot.
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
    """Another living front-end, by what it announces.

    Attributes:
        session, address: Its session, and the address that is dialled to hear its news.
        listens: Whether it reads this front-end's record.
        tells: Whether it writes its news to a record.
    """

    def __init__(self, session: int, address: str, listens: bool, tells: bool) -> None:
        self.session: int = session
        self.address: str = address
        self.listens: bool = listens
        self.tells: bool = tells
