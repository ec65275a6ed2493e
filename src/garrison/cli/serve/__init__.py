"""Commands that bring a model to a live endpoint, and that look at one."""
