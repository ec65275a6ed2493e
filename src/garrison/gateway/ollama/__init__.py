"""Ollama's API on a port of its own: a process that translates it to requests to the gateway.

    translation     between the two APIs; pure
    told            what the process is told at its start, and the record of it
    guard           which hosts and web pages may ask; pure
    door            requests to the gateway
    certificate     trust in the gateway's own certificate
    client          one request of a client, and its answer
    catalogue       the names that clients use, and what is served under them
    answering       chat, generate, embed, embeddings
    models          tags, show, ps, pull
    openai          the paths of OpenAI's API that Ollama has too
    application     which path is answered by what
    process         startup, main_loop, shutdown

The process is a client of the gateway like any other. What its own clients may do, how much, and when a model is
started, is decided there, by the key that they send.
"""
