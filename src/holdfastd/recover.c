/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/recover.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/pipe.h"
#include "base/plural.h"
#include "base/socket.h"
#include "base/time.h"
#include "holdfastd/messages.h"
#include "holdfastd/worker.h"

/* After a row of crashes: the first delay, doubled for each further one up to the last. */
#define CRASH_DELAY_FIRST_USEC (20 * USEC_PER_MSEC)
#define CRASH_DELAY_LAST_USEC (5 * USEC_PER_SEC)

void recover_say(const struct adopt_report *report)
{
	switch (report->ledger) {
	case ADOPT_LEDGER_NONE:
	case ADOPT_LEDGER_FOUND:
		break;
	case ADOPT_LEDGER_DAMAGED:
		log_line(LOG_ERR, MESSAGE_LEDGER,
			 "The stored ledger is damaged: the connections that it described were "
			 "reset");
		break;
	case ADOPT_LEDGER_INCOMPATIBLE:
		log_line(LOG_ERR, MESSAGE_LEDGER,
			 "The stored ledger is from a newer version that this one can't read: "
			 "its connections were reset");
		break;
	}
	if (report->n_damaged > 0)
		log_line(LOG_ERR, MESSAGE_LEDGER,
			 "%u stored entries made no sense and were reset",
			 report->n_damaged);
	if (report->n_unknown_fds > 0)
		log_warning("%u stored fds of unknown names were closed",
			    report->n_unknown_fds);
}

static int compare_active(const void *a, const void *b, void *userdata)
{
	const struct ledger_slot *slots = userdata;
	uint64_t x = slots[*(const uint32_t *)a].active_usec;
	uint64_t y = slots[*(const uint32_t *)b].active_usec;

	return x < y ? -1 : x > y;
}

/* The slots of all live connections, least recently active first, as timers want them. */
static uint32_t *list_connections(struct vault *vault, uint32_t *ret_n)
{
	struct ledger_slot *slots = vault->ledger.slots;
	uint32_t *list = calloc(vault->n_adopted + 1, sizeof(*list)), n = 0;

	if (!list)
		return NULL;
	for (uint32_t slot = 0; slot < vault->n_adopted; slot++)
		if (slots[slot].state == SLOT_CONNECTION)
			list[n++] = slot;
	qsort_r(list, n, sizeof(*list), compare_active, slots);
	*ret_n = n;
	return list;
}

static bool is_pipe_of_both_ends(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode) &&
	       (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR;
}

int recover_take_pipe(struct worker *worker, slot_ref ref, struct pool_pipe **ret_pipe)
{
	struct vault *vault = worker->shared->vault;
	uint32_t slot = slot_ref_slot(ref);
	struct adopted_entry entry;
	bool is_pipe;

	*ret_pipe = NULL;
	if (ref == 0 || slot >= vault->n_adopted ||
	    vault->ledger.slots[slot].state != SLOT_PIPE ||
	    vault->ledger.slots[slot].generation != slot_ref_generation(ref) ||
	    !adopt_take(vault, slot, &entry))
		return 0;
	is_pipe = is_pipe_of_both_ends(entry.fds[0]);
	if (is_pipe)
		*ret_pipe = pipe_pool_adopt(&worker->pipes, ref, entry.fds[0]);
	if (*ret_pipe)
		return 0;
	adopt_give_back(vault, slot, &entry);
	return is_pipe ? -ENOMEM : 0;
}

static void quarantine(struct worker *worker, uint32_t slot, struct adopted_entry *entry)
{
	struct pool_pipe *no_pipes[LEDGER_FLOWS] = {0};
	const struct ledger_slot *record = &worker->shared->vault->ledger.slots[slot];
	struct log_entry *line = log_line_new(LOG_ERR, MESSAGE_QUARANTINED);
	char peer[SOCKET_NAME_SIZE];

	socket_format_peer(entry->fds[0], peer, sizeof(peer));
	log_entry_add(line, "HOLDFAST_CONNECTION=%llu", (unsigned long long)record->id);
	log_entry_add(line, "HOLDFAST_PEER=%s", peer);
	log_entry_add(line, "HOLDFAST_CRASHES=%u", record->n_crashes);
	log_line_send(line,
		      "Connection %llu was being handled at %u crashes in a row: it was reset",
		      (unsigned long long)record->id, record->n_crashes);
	connection_refuse(worker, slot, entry, no_pipes);
}

/* When the last byte moved, not counting the time in which no process was there to move
 * it. */
static uint64_t active_usec(const struct recovery *recovery, uint32_t slot)
{
	uint64_t active = recovery->shared->vault->ledger.slots[slot].active_usec;
	uint64_t away = recovery->began_usec - recovery->last_alive_usec;

	if (recovery->last_alive_usec > recovery->began_usec ||
	    active > recovery->last_alive_usec)
		return recovery->began_usec;
	return active + away;
}

int recover_take_pipes(struct worker *worker, uint32_t slot,
		       struct pool_pipe *ret_pipes[LEDGER_FLOWS])
{
	const struct ledger_slot *record = &worker->shared->vault->ledger.slots[slot];
	int r = 0;

	for (size_t i = 0; i < LEDGER_FLOWS; i++) {
		int failure =
			recover_take_pipe(worker, record->flows[i].pipe, &ret_pipes[i]);

		r = r < 0 ? r : failure;
	}
	return r;
}

/* Returns 0, also where it was reset since it can't be continued, or -ENOMEM. */
static int adopt_connection(struct recovery *recovery, uint32_t slot)
{
	struct shared *shared = recovery->shared;
	struct vault *vault = shared->vault;
	struct worker *worker = &shared->workers[recovery->n_adopted % shared->n_workers];
	struct pool_pipe *pipes[LEDGER_FLOWS];
	struct adopted_entry entry;
	int r;

	if (!adopt_take(vault, slot, &entry))
		return 0;
	if (adopt_is_quarantined(vault, slot)) {
		quarantine(worker, slot, &entry);
		return 0;
	}
	/* A record that makes this crash is to be quarantined as well */
	vault->ledger.header->in_hand[worker->index] =
		slot_ref_make(slot, vault->ledger.slots[slot].generation);
	r = recover_take_pipes(worker, slot, pipes);
	if (r == 0)
		r = connection_adopt(worker, slot, &entry, pipes,
				     active_usec(recovery, slot));
	vault->ledger.header->in_hand[worker->index] = 0;
	if (r < 0)
		return r == -ENOMEM ? r : 0;
	recovery->n_adopted++;
	recovery->pending_bytes +=
		connection_pending(TAILQ_LAST(&worker->all, connection_list));
	return 0;
}

void recover_note_settled(struct worker *worker)
{
	struct shared *shared = worker->shared;
	bool is_last;

	pthread_mutex_lock(&shared->audited_lock);
	audit_add_tally(&shared->audited, &worker->audited);
	is_last = --shared->n_unsettled_workers == 0;
	pthread_mutex_unlock(&shared->audited_lock);
	if (is_last)
		audit_log_tally(&shared->audited);
}

static void count_unsettled_workers(struct shared *shared)
{
	for (unsigned i = 0; i < shared->n_workers; i++)
		shared->n_unsettled_workers +=
			!TAILQ_EMPTY(&shared->workers[i].unsettled);
}

void recover_free_pipe(struct shared *shared, uint32_t slot)
{
	struct worker *worker = &shared->workers[slot % shared->n_workers];
	const struct ledger_slot *record = &shared->vault->ledger.slots[slot];
	struct pool_pipe *pipe = NULL;
	size_t pending;

	/* Without memory it is left to adopt_done(), which closes what nobody took */
	if (record->state == SLOT_PIPE)
		(void)recover_take_pipe(worker, slot_ref_make(slot, record->generation),
					&pipe);
	if (!pipe)
		return;
	if (pipe_get_pending(pipe->fd, &pending) == 0 && pending == 0)
		pipe_pool_return(&worker->pipes, pipe);
	else
		pipe_pool_discard(&worker->pipes, pipe);
}

static void say_adopted(const struct recovery *recovery)
{
	struct log_entry *line;

	log_info("recv tcpconn and read");
	line = log_line_new(LOG_NOTICE, MESSAGE_ADOPTED);
	log_entry_add(line, "HOLDFAST_CONNECTIONS=%u", recovery->n_adopted);
	log_entry_add(line, "HOLDFAST_PENDING=%llu",
		      (unsigned long long)recovery->pending_bytes);
	log_entry_add(line, "HOLDFAST_REFUSED=%u", recovery->n_refused);
	log_entry_add(line, "HOLDFAST_DURATION_USEC=%llu",
		      (unsigned long long)recovery->took_usec);
	log_line_send(
		line,
		"Adopted %u connection%s with %llu pending byte%s, refused %u, in %.1f ms",
		recovery->n_adopted, plural(recovery->n_adopted),
		(unsigned long long)recovery->pending_bytes,
		plural(recovery->pending_bytes), recovery->n_refused,
		(double)recovery->took_usec / USEC_PER_MSEC);
}

int recover_connections(struct recovery *recovery)
{
	struct shared *shared = recovery->shared;
	uint32_t n = 0, *list = list_connections(shared->vault, &n);
	int r = list ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < n && r == 0; i++)
		r = adopt_connection(recovery, list[i]);
	free(list);
	if (r < 0)
		return r;
	count_unsettled_workers(shared);
	for (uint32_t slot = 0; slot < shared->vault->n_adopted; slot++)
		recover_free_pipe(shared, slot);
	/* What is left was counted as damaged, or has no fds */
	(void)adopt_done(shared->vault);
	recovery->n_refused = n - recovery->n_adopted;
	recovery->took_usec = time_now_usec() - recovery->began_usec;
	if (n > 0)
		say_adopted(recovery);
	return 0;
}

/* After a row of crashes each start waits longer, so that a loop of them costs little. */
void recover_delay(const struct adopt_report *report)
{
	uint64_t delay = CRASH_DELAY_FIRST_USEC;
	struct log_entry *line;

	if (report->crash_signal == 0)
		return;
	line = log_line_new(LOG_ERR, MESSAGE_CRASHED);
	log_entry_add(line, "HOLDFAST_SIGNAL=%u", report->crash_signal);
	log_entry_add(line, "HOLDFAST_CRASHES=%u", report->n_crashes_in_row);
	log_line_send(line, "The last process crashed (%s); %u in a row",
		      strsignal((int)report->crash_signal), report->n_crashes_in_row);
	if (report->n_crashes_in_row < 2)
		return;
	for (uint32_t i = 2;
	     i < report->n_crashes_in_row && delay < CRASH_DELAY_LAST_USEC; i++)
		delay *= 2;
	if (delay > CRASH_DELAY_LAST_USEC)
		delay = CRASH_DELAY_LAST_USEC;
	(void)usleep((useconds_t)delay);
}
