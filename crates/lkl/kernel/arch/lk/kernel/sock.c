// SPDX-License-Identifier: GPL-2.0-only
/*
 * Non-blocking sockets for the host. Every call runs on the host's stack as pid 1. Readiness comes
 * through a wait-queue callback that feeds a list of ready sockets, as epoll does it.
 */
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/init_task.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/poll.h>
#include <linux/securebits.h>
#include <linux/slab.h>
#include <linux/task_work.h>
#include <linux/user_namespace.h>
#include <net/sock.h>
#include "lk_sock.h"

static LIST_HEAD(lk_ready);

#ifndef CONFIG_MULTIUSER
#error "without MULTIUSER everybody has every capability"
#endif
static struct group_info lk_no_groups = { .usage = REFCOUNT_INIT(1) };
/* An ordinary user: nobody, without capabilities. Never freed; not constant: it is counted. */
struct cred lk_user_cred = {
	.usage = ATOMIC_INIT(1),
	.uid = KUIDT_INIT(LK_USER),
	.gid = KGIDT_INIT(LK_USER),
	.suid = KUIDT_INIT(LK_USER),
	.sgid = KGIDT_INIT(LK_USER),
	.euid = KUIDT_INIT(LK_USER),
	.egid = KGIDT_INIT(LK_USER),
	.fsuid = KUIDT_INIT(LK_USER),
	.fsgid = KGIDT_INIT(LK_USER),
	.securebits = SECUREBITS_DEFAULT,
	.user = INIT_USER,
	.user_ns = &init_user_ns,
	.group_info = &lk_no_groups,
	.ucounts = &init_ucounts,
};

/*
 * Sockets need a file here and there: udp_poll() reads its flags, rtnetlink its credentials. One
 * serves all of the host's, one all of the user's. It is taken off before sock_release(), which
 * leaves the inode to a socket's file.
 */
struct file lk_file = { .f_flags = O_RDWR | O_NONBLOCK, .f_cred = &init_cred };
static struct file lk_user_file = { .f_flags = O_RDWR | O_NONBLOCK, .f_cred = &lk_user_cred };

static int lk_wake(wait_queue_entry_t *w, unsigned int mode, int sync, void *key)
{
	struct lk_sock *s = container_of(w, struct lk_sock, wait);

	s->mask |= key ? (__force u32)key_to_poll(key) : EPOLLIN | EPOLLOUT | EPOLLHUP | EPOLLERR;
	if (list_empty(&s->ready))
		list_add_tail(&s->ready, &lk_ready);
	return 1;
}

/* Takes over SOCK, also when it fails. */
static s64 lk_wrap(struct socket *sock, bool user, u64 cookie)
{
	struct lk_sock *s = kzalloc(sizeof(*s), GFP_KERNEL);
	int err = s ? lk_handle_add(&s->object, LK_SOCK) : -ENOMEM;

	if (err) {
		kfree(s);
		sock_release(sock);
		return err;
	}
	sock->file = user ? &lk_user_file : &lk_file;
	s->sock = sock;
	s->user = user;
	s->cookie = cookie;
	INIT_LIST_HEAD(&s->ready);
	init_waitqueue_func_entry(&s->wait, lk_wake);
	add_wait_queue(&sock->wq.wait, &s->wait);
	return s->object.handle;
}

LK_API s64 lk_socket(int family, int type, int proto, int flags, u64 cookie)
{
	const bool user = flags & LK_SOCK_USER;
	struct socket *sock;
	LK_CALL(err);
	LK_BECOME(user && !err);

	if (err)
		return err;
	if (type & ~SOCK_TYPE_MASK || flags & ~LK_SOCK_USER)
		return -EINVAL;
	err = sock_create(family, type, proto, &sock);
	/* The kernel's word for: no memory for a socket's inode. There is no limit on files here. */
	if (err == -ENFILE)
		return -ENOMEM;
	return err ?: lk_wrap(sock, user, cookie);
}

int lk_copy_addr(struct sockaddr_storage *ss, const void *addr, int len)
{
	if (len < (int)sizeof(sa_family_t) || len > (int)sizeof(*ss))
		return -EINVAL;
	memcpy(ss, addr, len);
	return 0;
}

LK_API int lk_bind(u64 handle, const void *addr, int len)
{
	struct sockaddr_storage ss;
	LK_SOCK_CALL(err, s, handle);

	return lk_copy_addr(&ss, addr, len) ?: kernel_bind(s->sock, (void *)&ss, len);
}

LK_API int lk_listen(u64 handle, int backlog)
{
	LK_SOCK_CALL(err, s, handle);

	/* The clamp of listen(2), which kernel_listen() leaves out. */
	backlog = min_t(unsigned int, backlog,
			READ_ONCE(sock_net(s->sock->sk)->core.sysctl_somaxconn));
	return kernel_listen(s->sock, backlog);
}

LK_API int lk_connect(u64 handle, const void *addr, int len)
{
	struct sockaddr_storage ss;
	LK_SOCK_CALL(err, s, handle);

	return lk_copy_addr(&ss, addr, len) ?:
	       kernel_connect(s->sock, (void *)&ss, len, O_NONBLOCK);
}

LK_API s64 lk_accept(u64 handle, u64 cookie, void *addr, int *alen)
{
	struct socket *sock;
	LK_SOCK_CALL(err, s, handle);

	if (!s->sock->ops->accept)
		return -EOPNOTSUPP;
	err = kernel_accept(s->sock, &sock, O_NONBLOCK);
	if (err)
		return err;
	if (addr) {
		/* 2: also if the peer has reset the connection since */
		err = sock->ops->getname(sock, addr, 2);
		if (err < 0) {
			sock_release(sock);
			return -ECONNABORTED;
		}
		*alen = err;
	}
	return lk_wrap(sock, s->user, cookie);
}

LK_API int lk_sock_shutdown(u64 handle, int how)
{
	LK_SOCK_CALL(err, s, handle);

	return kernel_sock_shutdown(s->sock, how);
}

static void lk_release(struct lk_sock *s)
{
	remove_wait_queue(&s->sock->wq.wait, &s->wait);
	list_del_init(&s->ready);
	lk_handle_del(&s->object);
	s->sock->file = NULL;
	sock_release(s->sock);
	kfree(s);
	/* pid 1 never returns to user mode, where this is otherwise done */
	if (task_work_pending(current))
		task_work_run();
}

/* A linger time would wait inside, with nobody to receive the acknowledgement: forget it. */
static void lk_no_wait(struct lk_sock *s)
{
	struct sock *sk = s->sock->sk;

	if (sk && sock_flag(sk, SOCK_LINGER) && sk->sk_lingertime)
		sock_reset_flag(sk, SOCK_LINGER);
}

LK_API int lk_close(u64 handle)
{
	LK_SOCK_CALL(err, s, handle);

	lk_no_wait(s);
	lk_release(s);
	return 0;
}

LK_API int lk_abort(u64 handle)
{
	LK_SOCK_CALL(err, s, handle);

	if (s->sock->sk)
		sock_no_linger(s->sock->sk);	/* lingers for 0: a reset */
	lk_release(s);
	return 0;
}

void lk_sock_close_all(void)
{
	struct lk_object *o;
	unsigned long at = 0;

	while ((o = lk_handle_any(LK_SOCK, &at))) {
		struct lk_sock *s = (struct lk_sock *)o;

		lk_no_wait(s);
		lk_release(s);
	}
}

/* Options whose value holds a pointer or a descriptor: neither can be checked here. */
static bool lk_unchecked(int level, int name)
{
	return level == SOL_SOCKET &&
	       (name == SO_ATTACH_FILTER || name == SO_ATTACH_BPF ||
		name == SO_ATTACH_REUSEPORT_CBPF || name == SO_ATTACH_REUSEPORT_EBPF);
}

/* Without an MMU "user" pointers are plain pointers. */
LK_API int lk_setsockopt(u64 handle, int level, int name, const void *val, int len)
{
	LK_SOCK_CALL(err, s, handle);

	if (lk_unchecked(level, name))
		return -ENOPROTOOPT;
	return do_sock_setsockopt(s->sock, false, level, name, USER_SOCKPTR((void __user *)val),
				  len);
}

LK_API int lk_getsockopt(u64 handle, int level, int name, void *val, int *len)
{
	LK_SOCK_CALL(err, s, handle);

	return do_sock_getsockopt(s->sock, false, level, name, USER_SOCKPTR((void __user *)val),
				  USER_SOCKPTR((void __user *)len));
}

LK_API int lk_getname(u64 handle, void *addr, int peer)
{
	LK_SOCK_CALL(err, s, handle);

	return peer ? kernel_getpeername(s->sock, addr) : kernel_getsockname(s->sock, addr);
}

LK_API s64 lk_pollmask(u64 handle)
{
	LK_SOCK_CALL(err, s, handle);

	return (__force u32)READ_ONCE(s->sock->ops)->poll(s->sock->file, s->sock, NULL);
}

LK_API int lk_events(struct lk_event *ev, int max)
{
	int n = 0;
	LK_CALL(err);

	if (err)
		return err;
	while (n < max && !list_empty(&lk_ready)) {
		struct lk_sock *s = list_first_entry(&lk_ready, struct lk_sock, ready);

		list_del_init(&s->ready);
		ev[n].cookie = s->cookie;
		ev[n++].mask = s->mask;
		s->mask = 0;
	}
	return n;
}
