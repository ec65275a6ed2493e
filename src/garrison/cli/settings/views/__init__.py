"""What the commands on settings show."""
