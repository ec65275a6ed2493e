"""One call of LiteLLM a line of standard input, {"name", "options"}; what came of each, a line of JSON."""

import json
import sys
from typing import Any

import litellm


def _text(answer: Any) -> dict[str, Any]:
    (choice,) = answer.choices
    calls = [[one.function.name, one.function.arguments] for one in choice.message.tool_calls or []]
    usage = answer.usage.completion_tokens
    return {"text": choice.message.content, "calls": calls, "reason": choice.finish_reason, "tokens": usage}


def _streamed(options: dict[str, Any]) -> dict[str, Any]:
    chunks = list(litellm.completion(**options, stream=True, stream_options={"include_usage": True}))
    return _text(litellm.stream_chunk_builder(chunks)) | {"chunks": len(chunks)}


def _left(options: dict[str, Any]) -> int:
    stream = litellm.completion(**options, stream=True)
    for _ in range(3):
        next(stream)
    stream.completion_stream.response.close()
    return 3


def _transcribed(options: dict[str, Any]) -> str:
    text = options.pop("text").encode()
    return str(litellm.transcription(**options, file=("a.wav", text, "audio/wav")).text)


CALLS = {
    "chat": lambda options: _text(litellm.completion(**options)),
    "streamed": _streamed,
    "left": _left,
    "completion": lambda options: litellm.text_completion(**options).choices[0].text,
    "embedding": lambda options: len(litellm.embedding(**options).data[0]["embedding"]),
    "response": lambda options: litellm.responses(**options).output_text,
    "response_events": lambda options: [str(one.type.value) for one in litellm.responses(**options, stream=True)],
    "transcription": _transcribed,
}


def main() -> None:
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.num_retries = 0
    told: Any
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            told = {"value": CALLS[asked["name"]](asked["options"])}
        except Exception as error:  # noqa: BLE001 - which one is what the test asks
            told = {"error": type(error).__name__, "status": getattr(error, "status_code", None), "message": str(error)}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
