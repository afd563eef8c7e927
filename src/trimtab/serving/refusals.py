"""What a server says no to, each with its status in HTTP."""

from __future__ import annotations

from typing import ClassVar, final

from trimtab.errors import TrimtabError


class Refusal(TrimtabError):
    """A request that is not served."""

    status: ClassVar[int] = 400


@final
class UnknownError(Refusal):
    """There is nothing of that name."""

    status = 404


@final
class TakenError(Refusal):
    """There is something of that name already."""

    status = 409


@final
class TooLargeError(Refusal):
    """More than one request may bring."""

    status = 413


@final
class OverloadedError(Refusal):
    """Too many requests at once."""

    status = 429


@final
class TokenError(Refusal):
    """No token, or not the right one."""

    status = 401


@final
class ForbiddenError(Refusal):
    """This server was not started to do that."""

    status = 403


@final
class ClosingError(Refusal):
    """The server is going down."""

    status = 503


@final
class DiskError(Refusal):
    """The server's own disk refuses; nothing is wrong with the request."""

    status = 507
