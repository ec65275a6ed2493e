"""Between Ollama's API and OpenAI's. Pure: values in, values out; no sockets, no clock, nothing that waits.

bodies        what Ollama's clients send, with its types
options       `options` to parameters of OpenAI's API
messages      messages, images, tools and calls of tools
requests      a chat, a generation, an embedding: the request for the engine
objects       the objects that Ollama's clients read
answers       what an engine answers, whole or a chunk of it
tool_calls    calls of tools, put together from their pieces
stream        server-sent events to lines of JSON, as they arrive
embeddings    vectors
listing       the gateway's list of models: names, tags, show, ps
errors        an engine's error as one sentence
"""
