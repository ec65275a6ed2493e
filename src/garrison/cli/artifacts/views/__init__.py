"""What the commands on models and adapters show."""
