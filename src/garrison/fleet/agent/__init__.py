"""The reconcile loop, and the parts that run beside it.

    loop            one step after the other, as described there
    looks           observes targets when they are due; `schedule` says when
    repairs         decides which targets need a repair, and learns from its end; `backoff` says what to leave alone
    repair_queue    repairs stacks side by side, each under its lease
    recorder        writes what was seen in batches, and reports the history; `write_buffer` holds what is not written
    upkeep          watches the adapters' files, and deletes old history
    watched         copies of the store's records, by target

What is decided about a target lives below, in `plan` and `observe`; nothing here sends a request of its own.
"""
