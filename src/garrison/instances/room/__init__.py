"""Who may run, where, and who makes room: pure functions of values.

The invariants: limits and memory are never over-committed, nothing pinned or busy is evicted, and every question has an
answer that explains itself.
"""
