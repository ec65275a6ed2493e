"""Where a request goes: which target of a route, and whether it may go to another one when that fails.

No I/O, no event loop, no clock: `now` is in monotonic seconds and given by the caller.

    target = policy.order(candidates, key, now)         # takes the probe of a breaker that is half open
    generation = target.breaker.generation
    target.outstanding += 1
    ...                                                 # then exactly one of these
    target.succeeded(now, generation)                   # the head of an answer came
    target.breaker.failed(now, generation)              # `retry.blames_target` says whether
    target.breaker.cancelled(now, generation)

`candidates` is replaced by another sequence when a target joins, leaves or gets another weight, and is never changed
in place: policies keep what they worked out for as long as they are given the same object. A target that stays keeps
its `Candidate`, and with it its load and its breaker.
"""
