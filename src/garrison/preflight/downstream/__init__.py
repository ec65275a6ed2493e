"""The command behind a preflight: started, watched until it has the port, signalled and reaped."""
