// SPDX-License-Identifier: GPL-2.0-only
/*
 * Non-blocking sockets for the host. Every call runs on the host's stack as pid 1. Readiness comes
 * through a wait-queue callback that feeds a list of ready sockets, as epoll does it.
 */
#include <linux/file.h>
#include <linux/init_task.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/task_work.h>
#include <net/sock.h>
#include "lk_int.h"

struct lk_sock {
	struct lk_object object;	/* first */
	struct socket *sock;
	wait_queue_entry_t wait;
	struct list_head ready;
	u64 cookie;
	u32 mask;
};

/* Flags that would let the kernel keep pointers into the host's memory. */
#define LK_NO_FLAGS	(MSG_INTERNAL_SENDMSG_FLAGS | MSG_ZEROCOPY)

static LIST_HEAD(lk_ready);
/*
 * Sockets need a file here and there: udp_poll() reads its flags, rtnetlink its credentials. One
 * serves all. It is taken off before sock_release(), which leaves the inode to a socket's file.
 */
struct file lk_file = { .f_flags = O_RDWR | O_NONBLOCK, .f_cred = &init_cred };

/* Opens a call on a socket: declares ERR and S. */
#define LK_SOCK_CALL(err, s, handle)				\
	LK_CALL(err);						\
	struct lk_sock *s = (err) ? NULL : lk_sock_get(handle);	\
	if (!(s))						\
		return (err) ?: -EBADF

static struct lk_sock *lk_sock_get(u64 handle)
{
	return (struct lk_sock *)lk_handle_get(handle, LK_SOCK);
}

static int lk_wake(wait_queue_entry_t *w, unsigned int mode, int sync, void *key)
{
	struct lk_sock *s = container_of(w, struct lk_sock, wait);

	s->mask |= key ? (__force u32)key_to_poll(key) : EPOLLIN | EPOLLOUT | EPOLLHUP | EPOLLERR;
	if (list_empty(&s->ready))
		list_add_tail(&s->ready, &lk_ready);
	return 1;
}

/* Takes over SOCK, also when it fails. */
static s64 lk_wrap(struct socket *sock, u64 cookie)
{
	struct lk_sock *s = kzalloc(sizeof(*s), GFP_KERNEL);
	int err = s ? lk_handle_add(&s->object, LK_SOCK) : -ENOMEM;

	if (err) {
		kfree(s);
		sock_release(sock);
		return err;
	}
	sock->file = &lk_file;
	s->sock = sock;
	s->cookie = cookie;
	INIT_LIST_HEAD(&s->ready);
	init_waitqueue_func_entry(&s->wait, lk_wake);
	add_wait_queue(&sock->wq.wait, &s->wait);
	return s->object.handle;
}

LK_API s64 lk_socket(int family, int type, int proto, u64 cookie)
{
	struct socket *sock;
	LK_CALL(err);

	if (err)
		return err;
	if (type & ~SOCK_TYPE_MASK)
		return -EINVAL;
	err = sock_create(family, type, proto, &sock);
	/* The kernel's word for: no memory for a socket's inode. There is no limit on files here. */
	if (err == -ENFILE)
		return -ENOMEM;
	return err ?: lk_wrap(sock, cookie);
}

static int lk_copy_addr(struct sockaddr_storage *ss, const void *addr, int len)
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

LK_API s64 lk_accept(u64 handle, u64 cookie)
{
	struct socket *sock;
	LK_SOCK_CALL(err, s, handle);

	if (!s->sock->ops->accept)
		return -EOPNOTSUPP;
	return kernel_accept(s->sock, &sock, O_NONBLOCK) ?: lk_wrap(sock, cookie);
}

static s64 lk_sendmsg(struct lk_sock *s, struct msghdr *m, const struct lk_iov *iov, int n,
		      int flags)
{
	size_t len = 0;
	int i;

	BUILD_BUG_ON(sizeof(struct lk_iov) != sizeof(struct kvec));
	for (i = 0; i < n; i++)
		len += iov[i].len;
	m->msg_flags = (flags & ~LK_NO_FLAGS) | MSG_DONTWAIT | MSG_NOSIGNAL;
	iov_iter_kvec(&m->msg_iter, ITER_SOURCE, (const struct kvec *)iov, n,
		      min_t(size_t, len, MAX_RW_COUNT));
	return sock_sendmsg(s->sock, m);
}

LK_API s64 lk_send(u64 handle, const void *buf, size_t len, int flags, const void *addr, int alen)
{
	struct lk_iov iov = { buf, len };
	struct sockaddr_storage ss;
	struct msghdr m = { };
	LK_SOCK_CALL(err, s, handle);

	if (addr) {
		err = lk_copy_addr(&ss, addr, alen);
		if (err)
			return err;
		m.msg_name = &ss;
		m.msg_namelen = alen;
	}
	return lk_sendmsg(s, &m, &iov, 1, flags);
}

LK_API s64 lk_sendv(u64 handle, const struct lk_iov *iov, int n, int flags)
{
	struct msghdr m = { };
	LK_SOCK_CALL(err, s, handle);

	return n < 0 ? -EINVAL : lk_sendmsg(s, &m, iov, n, flags);
}

static s64 lk_recvmsg(struct lk_sock *s, struct msghdr *m, const struct lk_iov *iov, int n,
		      int flags)
{
	size_t len = 0;
	int i;

	for (i = 0; i < n; i++)
		len += iov[i].len;
	iov_iter_kvec(&m->msg_iter, ITER_DEST, (const struct kvec *)iov, n,
		      min_t(size_t, len, MAX_RW_COUNT));
	return sock_recvmsg(s->sock, m, flags | MSG_DONTWAIT);
}

LK_API s64 lk_recv(u64 handle, void *buf, size_t len, int flags, void *addr, int *alen)
{
	struct lk_iov iov = { buf, len };
	struct sockaddr_storage ss;
	struct msghdr m = { };
	s64 r;
	LK_SOCK_CALL(err, s, handle);

	if (addr)
		m.msg_name = &ss;
	r = lk_recvmsg(s, &m, &iov, 1, flags);
	if (r >= 0 && addr) {
		memcpy(addr, &ss, min(*alen, m.msg_namelen));
		*alen = m.msg_namelen;
	}
	return r;
}

LK_API s64 lk_recvv(u64 handle, const struct lk_iov *iov, int n, int flags)
{
	struct msghdr m = { };
	LK_SOCK_CALL(err, s, handle);

	return n < 0 ? -EINVAL : lk_recvmsg(s, &m, iov, n, flags);
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

	return (__force u32)READ_ONCE(s->sock->ops)->poll(&lk_file, s->sock, NULL);
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
