from garrison.launch.run.view import LastingView
from garrison.testing.views import RecordingStartView


def test_a_lasting_view_passes_everything_on() -> None:
    recording = RecordingStartView()
    view = LastingView(recording)
    view.note("a")
    view.phase("load", seconds=1, memory_bytes=2)
    view.line("b")
    view.ready(seconds=1, memory_bytes=2)
    view.stopping("c")
    view.stopped(seconds=1)
    view.end()
    assert [kind for kind, _ in recording.events] == ["note", "phase", "line", "ready", "stopping", "stopped", "end"]


def test_a_view_that_is_gone_is_no_error() -> None:
    class Gone(RecordingStartView):
        def line(self, text: str) -> None:
            raise BrokenPipeError

        def stopping(self, reason: str) -> None:
            raise OSError(5, "Input/output error")

    view = LastingView(Gone())
    view.line("a")
    view.stopping("SIGHUP")
