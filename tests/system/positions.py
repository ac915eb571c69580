# SPDX-License-Identifier: LGPL-2.1-or-later
"""Streams of bytes in which each byte is known by its position alone. See streams.py."""

import hashlib
import struct

BLOCK_SIZE = 64 * 1024
POOL_SIZE = 16 * 1024 * 1024
HEADER = struct.Struct(">QQ")
# Small numbers would make headers of many equal bytes, of which a lost one is not seen at once
HEADER_MASK = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)

# Random bytes that the blocks of all streams are cut from: to cut is many times faster than to
# generate, and the test must not be slower than what it tests
_POOL = hashlib.shake_128(b"holdfast").digest(POOL_SIZE + BLOCK_SIZE)

# How far around the expected position a stray byte is looked for, to say what happened
SEARCH_DISTANCE = 4 * 1024 * 1024
SEARCH_LENGTH = 24


class StreamError(Exception):
    """What was received is not what belongs at its position."""


class Stream:
    """An endless stream of bytes, given by its seed (0 to 2**64 - 1).

    Block k is a header, (seed, k), and a cut from the pool at a place that depends on both.
    """

    def __init__(self, seed):
        self.seed = seed

    @classmethod
    def of_header(cls, data):
        """The stream that begins with data, of which HEADER.size bytes are needed."""
        return cls(HEADER.unpack_from(data)[0] ^ HEADER_MASK[0])

    def _block(self, k):
        header = HEADER.pack(self.seed ^ HEADER_MASK[0], k ^ HEADER_MASK[1])
        place = int.from_bytes(hashlib.blake2b(header, digest_size=8).digest(), "big")
        start = place % POOL_SIZE
        return header + _POOL[start : start + BLOCK_SIZE - HEADER.size]

    def read(self, position, n):
        """The n bytes from position on."""
        first, skip = divmod(position, BLOCK_SIZE)
        last = (position + n + BLOCK_SIZE - 1) // BLOCK_SIZE
        blocks = b"".join(self._block(k) for k in range(first, last))
        return blocks[skip : skip + n]

    def digest(self, n):
        """The SHA-256 of the first n bytes."""
        digest = hashlib.sha256()
        for position in range(0, n, BLOCK_SIZE):
            digest.update(self.read(position, min(BLOCK_SIZE, n - position)))
        return digest.hexdigest()

    def check(self, position, data):
        """Raises StreamError unless data is what belongs at position."""
        expected = self.read(position, len(data))
        if data == expected:
            return
        wrong = next(i for i in range(len(data)) if data[i] != expected[i])
        raise StreamError(self._describe(position + wrong, data[wrong:]))

    def _describe(self, position, rest):
        """Says where the bytes from the first wrong one on would have belonged."""
        sample = bytes(rest[:SEARCH_LENGTH])
        later = self.read(position, SEARCH_DISTANCE).find(sample)
        start = max(0, position - SEARCH_DISTANCE)
        earlier = self.read(start, position - start + len(sample) - 1).rfind(sample)
        n_repeated = position - start - earlier
        if later >= 0 and (earlier < 0 or later < n_repeated):
            return f"byte {position}: {later} bytes are missing"
        if earlier >= 0:
            return f"byte {position}: {n_repeated} bytes are repeated"
        return f"byte {position}: {sample!r} is not of this stream"
