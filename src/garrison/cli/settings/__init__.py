"""Commands on settings, and what a shell completes."""
