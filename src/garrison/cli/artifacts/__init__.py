"""Commands on models and adapters on disk."""
