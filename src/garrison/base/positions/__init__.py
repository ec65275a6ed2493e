"""Line and column of the values in a document, for messages. `documents` uses it; it parses no values."""
