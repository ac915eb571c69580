/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One MESSAGE_ID for each kind of event (sd-id128(3)); they never change their meaning. */
#pragma once

/* The service has started */
#define MESSAGE_STARTED "4e7ca1ade8e84ba3ad07e27a465c69aa"
/* Connections of the last process were adopted */
#define MESSAGE_ADOPTED "a19a24b2d82b41f4bcc6b37cdffe55a4"
/* A connection of the last process goes on in this one */
#define MESSAGE_CONTINUED "fcd5beb972fb4d5ead3cf633564026a8"
/* Log: a read or a line of a connection */
#define MESSAGE_READ "46e0572f2aa24b98ba3af7fd1e6f3ea6"
/* A connection was accepted */
#define MESSAGE_OPENED "c3bf070736294daa9fa3eed94946d6d3"
/* A connection ended in order */
#define MESSAGE_ENDED "41061ace7ca7404a87ff3a7a79308490"
/* A connection was reset */
#define MESSAGE_RESET "c5f11cb084c248ae83269d69a598bcb1"
/* A limit was reached */
#define MESSAGE_LIMIT "334e48c4fffa4655b4c0fadb31e25470"
/* No address of the upstream answered */
#define MESSAGE_UPSTREAM "641bf52262894f72b52edfe0d4acc92e"
/* The name of the upstream can't be resolved */
#define MESSAGE_UPSTREAM_NAME "2a43cda15bbf4054bf2f62e7241d7558"
/* A connection was in hand at too many crashes */
#define MESSAGE_QUARANTINED "cd9c3d2d07fa4e7d901700e6e448b0bd"
/* The stored ledger could not be used */
#define MESSAGE_LEDGER "c2b91b19235242a7a595ec1135633a08"
/* The last process crashed */
#define MESSAGE_CRASHED "ccd97e67d8114978919dfc3a46faca21"
/* The service can't start */
#define MESSAGE_NOT_STARTED "06debdfb2030499a929306511a3d2e85"
/* There is no control socket */
#define MESSAGE_CONTROL "5403d7d0e63c4bdca20c992fb1b39528"
/* How the audit of many connections went */
#define MESSAGE_AUDIT "0ea3b1e0bc8740d4b0905074a3de6135"
/* A connection did not pass its audit and was reset */
#define MESSAGE_AUDIT_WRONG "ca08a558b6be4e56a09077fb003fb2e0"
/* The service stops */
#define MESSAGE_STOPPING "a564b9cd7cd141649b846eb05a1330ed"
/* A worker makes no progress */
#define MESSAGE_WATCHDOG "79b2c3c537024a958bcf79315d619226"
/* A successor was started */
#define MESSAGE_TAKEOVER_BEGUN "172a27dc5e244d8196551d7419ba3815"
/* A successor serves: its word, and that of the process before it */
#define MESSAGE_TAKEOVER "a478716c39024b539b883555420367df"
/* A takeover has failed */
#define MESSAGE_TAKEOVER_FAILED "331ccc815613449ab3c0da12614cdf3c"
