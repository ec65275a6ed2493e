"""What every room may use: errors and exit codes, settings, clock, small values. Imports nothing of ours."""
