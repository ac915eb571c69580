# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long a test waits for what takes milliseconds on a machine that has nothing else to do."""

# A busy machine stalls a process for seconds; who waits in vain waits no longer than this
PATIENCE_SECONDS = 60
