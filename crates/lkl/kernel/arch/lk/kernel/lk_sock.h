/* SPDX-License-Identifier: GPL-2.0-only */
/* Sockets, for the files that call into them. */
#ifndef LK_SOCK_H
#define LK_SOCK_H

#include <linux/cleanup.h>
#include <linux/cred.h>
#include <linux/net.h>
#include <linux/wait.h>
#include "lk_int.h"

struct lk_sock {
	struct lk_object object;	/* first */
	struct socket *sock;
	wait_queue_entry_t wait;
	struct list_head ready;
	u64 cookie;
	u32 mask;
	bool user;			/* calls are an ordinary user's */
};

/* uid and gid of "nobody". */
#define LK_USER		65534
extern struct cred lk_user_cred;

static inline const struct cred *lk_become(bool user)
{
	return unlikely(user) ? override_creds(&lk_user_cred) : NULL;
}

static inline void lk_become_host(const struct cred *const *before)
{
	if (unlikely(*before))
		revert_creds(*before);
}

/* To the end of the scope, if USER: pid 1 is an ordinary user. */
#define LK_BECOME(user)								\
	const struct cred *const lk_before __cleanup(lk_become_host) = lk_become(user)

static inline struct lk_sock *lk_sock_get(u64 handle)
{
	return (struct lk_sock *)lk_handle_get(handle, LK_SOCK);
}

/* Opens a call on a socket, as whoever owns it: declares ERR and S. */
#define LK_SOCK_CALL(err, s, handle)				\
	LK_CALL(err);						\
	struct lk_sock *s = (err) ? NULL : lk_sock_get(handle);	\
	if (!(s))						\
		return (err) ?: -EBADF;				\
	LK_BECOME((s)->user)

/* -EINVAL: no length of an address. */
int lk_copy_addr(struct sockaddr_storage *ss, const void *addr, int len);

#endif
