"""Recordings: every frame of every sensor in one MCAP file that Foxglove opens, and the same frames back as sensors.

MCAP: https://mcap.dev/spec. Message schemas: https://docs.foxglove.dev/docs/sdk/schemas.
"""
