"""The places where a model is looked for: one module per source, behind the `Source` protocol.

local, snapshots        on this machine
r2, hf_hub              over a network; hub_client sends the requests of hf_hub
staging, transfer       what a download shares with the next run, and with other sources
side_by_side, plain_http, selection, aws_credentials

A source finds and fetches; it neither checks a download nor moves it into place, which `models.resolve` does.
"""
