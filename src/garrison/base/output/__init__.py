"""What output needs wherever it goes: text without control characters, and streams that never block their writer.

Secrets are the business of `base.redaction`; what is shown, and how it looks, is that of the views and of `telemetry`.
"""
