/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vault/proof.h"

#include <poll.h>

#include "base/fd.h"
#include "vault/vault.h"

void proof_begin(struct vault *vault)
{
	if (vault->store_max == STORE_MAX_UNKNOWN)
		(void)store_put_pipe(STORE_NAME_PROOF, &vault->proof_fd);
}

bool proof_end(struct vault *vault)
{
	struct pollfd p = {.fd = vault->proof_fd, .events = POLLIN};

	if (vault->proof_fd < 0)
		return false;
	vault->stores_nothing = poll(&p, 1, 0) > 0 && (p.revents & POLLHUP);
	/* If this fails the next start removes it */
	(void)store_remove(STORE_NAME_PROOF);
	vault->proof_fd = fd_close(vault->proof_fd);
	return !vault->stores_nothing;
}

void proof_look(struct vault *vault)
{
	if (vault->proof_fd >= 0 && ++vault->n_proof_looks >= PROOF_LOOKS)
		(void)proof_end(vault);
}
