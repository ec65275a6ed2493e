"""Commands on engines."""
