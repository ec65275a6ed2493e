"""What a start looks like."""
