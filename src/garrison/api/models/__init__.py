"""`/api/v1/models`: what is on disk, and downloads as jobs."""
