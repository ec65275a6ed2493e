"""What each engine is: how it is found, started, asked, understood and installed."""
