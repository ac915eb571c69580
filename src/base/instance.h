/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a holdfastd and its holdfastctl call things over the control socket. It is spoken
 * peer to peer, without a bus, so no name of D-Bus is owned by anybody: an object that
 * changes in an incompatible way gets another interface.
 */
#pragma once

#define INSTANCE_OBJECT "/holdfast"
#define INSTANCE_INTERFACE "holdfast.Instance1"
#define INSTANCE_TAKEOVER "Takeover"
