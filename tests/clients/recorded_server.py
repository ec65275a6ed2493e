"""A server for the engine `custom`: `recorded_server.py PORT`.

It answers with what vLLM 0.32.0 (CPU, the model of `scripts/tiny_model.py`) answered once: tool calls, responses and
messages, which the simulator does not have. It stores no response. A transcription and a ranking say what arrived, and
`/v1/realtime` echoes.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

RECORDED = Path(__file__).with_name("recorded")
_ANSWERS = {
    "/v1/chat/completions": "chat-tools",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/v1/messages/count_tokens": "count-tokens",
}
_MOST_BYTES = 64 * 2**20


async def _recorded(request: web.Request) -> web.StreamResponse:
    asked = await request.json()
    name = _ANSWERS[request.path]
    if not asked.get("stream"):
        return web.Response(body=(RECORDED / f"{name}.json").read_bytes(), content_type="application/json")
    answer = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
    await answer.prepare(request)
    for event in (RECORDED / f"{name}.sse").read_bytes().split(b"\n\n"):
        if event:
            await answer.write(event + b"\n\n")
    return answer


async def _no_response(request: web.Request) -> web.Response:
    message = f"Response with id '{request.match_info['id']}' not found."
    error = {"message": message, "type": "invalid_request_error", "param": "response_id", "code": 404}
    return web.json_response({"error": error}, status=404)


async def _transcribed(request: web.Request) -> web.Response:
    form = await request.post()
    file: Any = form["file"]
    data = file.file.read()
    text = f"{form['model']} {file.filename} {len(data)} {hashlib.sha256(data).hexdigest()}"
    return web.json_response({"text": text})


async def _realtime(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=("realtime",), max_msg_size=_MOST_BYTES)
    await socket.prepare(request)
    await socket.send_json({"path": request.path_qs, "authorization": request.headers.get("authorization")})
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def _healthy(_request: web.Request) -> web.Response:
    return web.Response()


async def _asked(request: web.Request) -> web.Response:
    """What the server was sent, compressed where the client reads that."""
    body = await request.read()
    told = {"headers": {name.lower(): value for name, value in request.headers.items()}, "body": json.loads(body)}
    answer = web.json_response(told)
    answer.enable_compression()
    return answer


def main() -> None:
    app = web.Application(client_max_size=_MOST_BYTES)
    app.router.add_get("/health", _healthy)
    app.router.add_get("/v1/realtime", _realtime)
    app.router.add_get("/v1/responses/{id}", _no_response)
    app.router.add_post("/v1/audio/transcriptions", _transcribed)
    app.router.add_post("/v1/rerank", _asked)
    for path in _ANSWERS:
        app.router.add_post(path, _recorded)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)


if __name__ == "__main__":
    main()
