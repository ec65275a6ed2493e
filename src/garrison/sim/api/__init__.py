"""What the simulator answers, one module per group of paths. Knows no sockets."""
