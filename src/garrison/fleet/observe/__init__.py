"""Looking at targets: many at once, one sighting each, what a sighting changes in the record, and what is drift."""
