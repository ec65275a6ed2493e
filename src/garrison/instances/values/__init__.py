"""What an instance is told and what is known about it. Values only."""
