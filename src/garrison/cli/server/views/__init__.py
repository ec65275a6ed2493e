"""What the commands on a server show."""
