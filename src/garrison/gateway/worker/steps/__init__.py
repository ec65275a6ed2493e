"""The steps of one exchange, each on top of the one before: its state, failing, waiting, answering, sending."""
