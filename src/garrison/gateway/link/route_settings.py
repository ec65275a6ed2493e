"""What a route says beside its targets, as it is sent: parameters, affinity, limits, waiting, times. Values."""

import msgspec

__all__ = ["AffinityValue", "FilterValue", "LimitsValue", "QueueValue", "TimeoutsValue"]


class FilterValue(msgspec.Struct, frozen=True, kw_only=True):
    """What changes in the bodies of requests.

    Attributes:
        set: JSON text by parameter.
        strip: parameters that are removed.
    """

    set: dict[str, str] = {}
    strip: tuple[str, ...] = ()


class AffinityValue(msgspec.Struct, frozen=True, kw_only=True):
    """What tells requests that belong together. What is empty or 0 is as the policy has it.

    Attributes:
        header: of a session.
        by: `session`, `user` and `prompt`, in the order in which they are asked.
        prompt_bytes: of the prompt that count.
    """

    header: str = ""
    by: tuple[str, ...] = ()
    prompt_bytes: int = 0


class LimitsValue(msgspec.Struct, frozen=True, kw_only=True):
    """How much a route carries; None is no limit. Past the first two, 429; past the last, requests wait."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None


class QueueValue(msgspec.Struct, frozen=True, kw_only=True):
    """How requests wait. Times are in seconds.

    Attributes:
        length: requests; None for as many as may wait for one instance.
        bytes: of their bodies together.
        busy: for a place.
        loading: for a target that does not run; None for as long as for any instance.
        ageing: waiting time that counts as much as one step of a key's priority.
    """

    length: int | None = None
    bytes: int = 256 * 2**20
    busy: float = 30.0
    loading: float | None = None
    ageing: float = 10.0


class TimeoutsValue(msgspec.Struct, frozen=True, kw_only=True):
    """When a request is given up, in seconds; None is never.

    Attributes:
        connect: for a connection to a target; None for the gateway's own limit.
        first_byte: from the request to the first byte of its answer.
        between_bytes: between two pieces of an answer.
        whole: from the request's arrival to the last byte of its answer.
    """

    connect: float | None = None
    first_byte: float | None = None
    between_bytes: float | None = None
    whole: float | None = None
