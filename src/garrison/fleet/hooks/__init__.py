"""Reports events to webhooks and commands, in order for each, without delaying the agent."""
