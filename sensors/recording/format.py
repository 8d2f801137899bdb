"""The numbers of the MCAP format that are read and written here without the package mcap: https://mcap.dev/spec."""

from __future__ import annotations

import struct

MAGIC = b"\x89MCAP0\r\n"
HEADER = struct.Struct("<BQ")  # opcode and length of a record
CHUNK = struct.Struct("<QQQI")  # start, end, size, crc
MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
FOOTER = struct.Struct("<QQI")  # summary, its offsets, crc
FOOTER_OP, CHANNEL_OP, MESSAGE_OP, CHUNK_OP, INDEX_OP, METADATA_OP, DATA_END_OP = 2, 4, 5, 6, 7, 12, 15
LAST_OP, FIRST_PRIVATE_OP = 15, 128  # opcodes between them mean nothing
INDEX_ENTRY_BYTES, CRC_BYTES = 16, 4
NS = 1_000_000_000
