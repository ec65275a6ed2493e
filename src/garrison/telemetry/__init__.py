"""What a running Garrison says about itself to those who operate it: logs today; metrics and traces belong here too.

Rooms log through `base.logs`, which needs nothing but the standard library; this room decides how lines look and where
they go, and alone imports structlog. Programs that run for long open an output; short commands do not import this room.
What a line is about is no business of this room: it knows no models, engines or targets.
"""
