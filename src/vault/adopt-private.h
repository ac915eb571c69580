/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Between adopt.c, which makes entries of the parcels in the store, and adopt-entries.c,
 * which has them from then on.
 */
#pragma once

#include "vault/adopt.h"
#include "vault/vault.h"

/* Frees the pipes that two flows claim. Returns 0 or -ENOMEM. */
int adopt_check_claims(struct vault *vault);
