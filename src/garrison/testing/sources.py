"""The twin of a place where models are looked for."""

from dataclasses import dataclass, field

from garrison.models.files.progress import Progress
from garrison.models.request import ResolveRequest
from garrison.models.sources.source import Outcome, Workspace

__all__ = ["MemorySource"]


@dataclass(slots=True)
class MemorySource:
    """`Source` with one scripted answer.

    Attributes:
        answer: returned by `find`, or raised when it is an exception.
        asked: the requests, in order.
    """

    name: str
    answer: Outcome | Exception
    asked: list[ResolveRequest] = field(default_factory=list)

    def find(self, request: ResolveRequest, workspace: Workspace, progress: Progress) -> Outcome:
        self.asked.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer
