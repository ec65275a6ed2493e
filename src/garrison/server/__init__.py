"""The daemon behind `garrison up`: composes instances, fleet, API and gateway; startup, main_loop, shutdown."""
