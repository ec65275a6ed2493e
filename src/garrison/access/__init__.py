"""Who may do what: API keys and their tokens, permissions, limits, and the audit log.

A request goes through three steps, none of which waits: `credentials.token_of` finds the token in the headers,
`keys.Keys.authenticate` says whose it is, `authorize.authorize` says whether that caller may do what was asked.
`limiter.Limiter` then counts. The store is asked only when a key changes.
"""
