"""An engine whose answers the last message of a chat decides: `scripted_engine.py PORT`.

echo     the request itself, as JSON
tools    a call of the first tool; once there is a result of a tool, a sentence with it
think    a thought and a word
refuse   an error with status 400
error    a word, then an error in the stream
die      a word, then the end of the connection
slow     words until the client leaves
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECES = ['{"a"', ": 1, ", '"b": 2}']


class Engine(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._json({"object": "list", "data": [{"id": "scripted", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        messages = body["messages"]
        words = str(messages[-1]["content"]) if messages[-1]["role"] != "tool" else "result"
        if words == "refuse":
            self._json({"error": {"message": "it will not", "type": "BadRequestError", "code": 400}}, 400)
        elif body.get("stream"):
            self._stream(words, body)
        else:
            message, reason = _message(words, body)
            choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
            self._json({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})

    def _stream(self, words: str, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        if words in ("error", "die", "slow"):
            self._event({"choices": [{"index": 0, "delta": {"content": "a"}}]})
            if words == "error":
                self._event({"error": {"message": "out of memory", "code": 500}})
            while words == "slow":
                time.sleep(0.05)
                self._event({"choices": [{"index": 0, "delta": {"content": " b"}}]})
            self.close_connection = True
            return
        message, reason = _message(words, body)
        for delta in _deltas(message):
            self._event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        self._event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, told: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(told).encode() + b"\n\n")
        self.wfile.flush()

    def _json(self, told: Any, status: int = 200) -> None:
        data = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


def _message(words: str, body: dict[str, Any]) -> tuple[dict[str, Any], str]:
    if words == "echo":
        return {"content": json.dumps(body)}, "stop"
    if words == "think":
        return {"reasoning": "hm", "content": "4"}, "stop"
    if words == "result":
        return {"content": f"The result is {body['messages'][-1]['content']}."}, "stop"
    function = {"name": body["tools"][0]["function"]["name"], "arguments": "".join(PIECES)}
    return {"content": None, "tool_calls": [{"id": "call_x", "type": "function", "function": function}]}, "tool_calls"


def _deltas(message: dict[str, Any]) -> list[dict[str, Any]]:
    calls = message.pop("tool_calls", None)
    if calls is None:
        return [{name: value} for name, value in message.items()]
    (call,) = calls
    first = {"index": 0, "id": call["id"], "function": {"name": call["function"]["name"], "arguments": ""}}
    rest = [{"index": 0, "function": {"arguments": piece}} for piece in PIECES]
    return [{"tool_calls": [one]} for one in (first, *rest)]


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Engine).serve_forever()
