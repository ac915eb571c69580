/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inspection: answers questions about connections, which belong to the workers. The
 * main thread finds in the registry who has them, and asks these (worker-request.h): so
 * no fd is used but by its owner.
 *
 * Nothing of it grows with the number of connections: a scan of the registry goes on in
 * slices, an answer has INSTANCE_PAGE_MAX connections at the most, and a worker reports
 * on INSPECTION_STEP of them before its own connections have their turn again. So a
 * client that asks as fast as it can costs others little, and one that does not read its
 * answer costs them nothing: the answer is the control room's then.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <systemd/sd-event.h>

/* Slots that the main thread looks at in a row. */
#define INSPECTION_SLICE 16384u
/* Connections that a worker reports on in a row. */
#define INSPECTION_STEP 16u
/* Questions at once: a client that has gone may leave one behind. */
#define INSPECTION_QUERIES_MAX 32u

struct control_call;
struct inspection;
struct shared;

/* shared: borrowed, with its workers. event: a reference is held. Returns 0 or a negative
 * errno. */
int inspection_new(struct shared *shared, sd_event *event,
		   struct inspection **ret_inspection);

/*
 * Lists connections by their slots: max at most, of the slots from after on (0: from the
 * first). Answers with control_call_list(), whose next is what after is to be for the
 * further ones. One that is there from the first page to the last is in exactly one.
 *
 * Returns 0 and owns call from then on, or -EBUSY for too many questions at once, or
 * -ENOMEM.
 */
int inspection_list(struct inspection *inspection, uint32_t after, uint32_t max,
		    struct control_call *call);

/*
 * Reports on one connection, or ends it: in order (connection_close()), or by a reset.
 * Answers with control_call_report() or control_call_done(), or that there is no such
 * connection. Returns as inspection_list() does.
 */
int inspection_get(struct inspection *inspection, uint64_t id, struct control_call *call);
int inspection_close(struct inspection *inspection, uint64_t id, bool reset,
		     struct control_call *call);
