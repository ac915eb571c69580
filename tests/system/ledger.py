# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ledger of a running service, opened from outside: to look into it, and to damage it.

The offsets are the stored format's, src/vault/ledger.h, where static_asserts hold them.
"""

import contextlib
import os
import struct

HEADER_SIZE = 4096
SLOT_SIZE = 128

MAGIC = (0, "<Q")
VERSION = (8, "<I")
MIN_READER = (12, "<I")
SLOT_SIZE_FIELD = (20, "<I")
N_SLOTS_USED = (28, "<I")
CRASH_SIGNAL = (48, "<I")
CRASH_WORKER = (52, "<I")
IN_HAND = (120, "<Q")

STATE = (0, "<I")
GENERATION = (4, "<I")
ID = (8, "<Q")
SERVICE = (16, "<I")
FLAGS = (20, "<I")

# Of the first flow
N_READ = (72, "<Q")

FLAG_CONNECTED = 1 << 2

STATE_CONNECTION = 0x4E4E4F43


class Ledger:
    """Opened through the service's own fd: the same memory, whoever holds it."""

    def __init__(self, instance):
        self._fd = os.open(self._find(instance.proc() / "fd"), os.O_RDWR)

    @staticmethod
    def _find(directory):
        for name in os.listdir(directory):
            path = directory / name
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(path).startswith("/memfd:holdfast-ledger"):
                    return path
        raise LookupError("the service has no ledger")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._fd)

    def get(self, field, base=0):
        offset, form = field
        data = os.pread(self._fd, struct.calcsize(form), base + offset)
        return struct.unpack(form, data)[0]

    def set(self, field, value, base=0):
        offset, form = field
        os.pwrite(self._fd, struct.pack(form, value), base + offset)

    def flip(self, offset, bit):
        byte = os.pread(self._fd, 1, offset)[0]
        os.pwrite(self._fd, bytes([byte ^ (1 << bit)]), offset)

    def connections(self):
        """The offsets of the slots that hold connections."""
        n = self.get(N_SLOTS_USED)
        bases = (HEADER_SIZE + i * SLOT_SIZE for i in range(n))
        return [base for base in bases if self.get(STATE, base) == STATE_CONNECTION]

    def reference(self, base):
        """What names the use of a slot, as IN_HAND holds it."""
        slot = (base - HEADER_SIZE) // SLOT_SIZE
        return self.get(GENERATION, base) << 32 | (slot + 1)
