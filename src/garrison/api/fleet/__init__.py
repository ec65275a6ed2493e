"""Declared stacks over the API: plan, apply, destroy, adopt, forget, and what is on record."""
