"""Telling others what happened: webhooks and commands, in order for each, never in the way of the agent."""
