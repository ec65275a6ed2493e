"""A model, an engine, its options and its adapters become a checked command, ready to exec or to spawn."""
