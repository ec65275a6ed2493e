"""What the commands on engines show."""
