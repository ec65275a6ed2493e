"""What is still needed, and by whom."""
