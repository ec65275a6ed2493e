"""`/v1/embeddings`. A real vLLM has it for embedding models only, the simulator for all."""

import base64
import struct

from garrison.sim.api.bodies import error, invalid, ok
from garrison.sim.api.calls import json_object, prompts_of
from garrison.sim.engine import Refusal
from garrison.sim.http.messages import Request, Response
from garrison.sim.state import ServerState
from garrison.sim.text import answer_key, embedding

__all__ = ["embeddings"]


def embeddings(state: ServerState, request: Request) -> Response:
    """Answer with vectors of length 1: lists of floats or, for `encoding_format: base64`, little-endian float32."""
    config = state.config
    body = json_object(request)
    if isinstance(body, Refusal):
        return error(body, config.error_shape)
    model = body.get("model") or ""
    size = body.get("dimensions") or config.embedding_size
    prompts = prompts_of(body.get("input"))
    if not isinstance(model, str) or not isinstance(size, int) or not 0 < size <= 65536 or not prompts:
        return error(invalid("value_error", "body.input", "Input should be a text or tokens", body), config.error_shape)
    if (refusal := state.engine.serves(model)) is not None:
        return error(refusal, config.error_shape)
    packed = body.get("encoding_format") == "base64"
    data = []
    for at, prompt in enumerate(prompts):
        weights = state.engine.weights(model, prompt.tokens)
        if isinstance(weights, Refusal):
            state.died()
            return error(weights, config.error_shape)
        vector = embedding(answer_key(prompt.text, config.model, weights, config.seed), size)
        shown = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if packed else vector
        data.append({"index": at, "object": "embedding", "embedding": shown})
    tokens = sum(len(prompt.tokens) for prompt in prompts)
    state.counters.prompt_tokens += tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
    name = model or state.base_names[0]
    return ok({"id": f"embd-{state.identity()}", "object": "list", "model": name, "data": data, "usage": usage})
