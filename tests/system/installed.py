# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an installation has, by whatever package it comes."""

FILES = (
    "/usr/bin/holdfastd",
    "/usr/bin/holdfast-keeper",
    "/usr/bin/holdfastctl",
    "/usr/lib/systemd/system/holdfast@.service",
    "/usr/lib/systemd/system/holdfast@.socket",
    "/usr/share/holdfast/relay.conf",
    "/usr/lib/systemd/system-generators/holdfast-generator",
    "/usr/share/doc/holdfast/examples/preserve/holdfast@.service.d/preserve.conf",
    "/etc/holdfast/example.conf",
    "/usr/lib/systemd/catalog/holdfast.catalog",
    "/usr/share/bash-completion/completions/holdfastctl",
    "/usr/share/man/man1/holdfastctl.1.gz",
    "/usr/share/man/man5/holdfast.conf.5.gz",
    "/usr/share/man/man7/holdfast.7.gz",
    "/usr/share/man/man8/holdfastd.8.gz",
    "/usr/share/man/man8/holdfast-keeper.8.gz",
)
