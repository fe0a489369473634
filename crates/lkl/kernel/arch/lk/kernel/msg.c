// SPDX-License-Identifier: GPL-2.0-only
/* What sockets send and receive: bytes, and whole messages with addresses and control data. */
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/net_tstamp.h>
#include <linux/socket.h>
#include <linux/udp.h>
#include <linux/uio.h>
#include <net/sock.h>
#include "lk_sock.h"

/* Flags that would let the kernel keep pointers into the host's memory. */
#define LK_NO_FLAGS	(MSG_INTERNAL_SENDMSG_FLAGS | MSG_ZEROCOPY)

static int lk_iter(struct msghdr *m, unsigned int dir, const struct lk_iov *iov, u32 n)
{
	size_t len = 0;
	u32 i;

	BUILD_BUG_ON(sizeof(struct lk_iov) != sizeof(struct kvec));
	if (n > UIO_MAXIOV)
		return -EMSGSIZE;
	for (i = 0; i < n; i++)
		len += iov[i].len;
	iov_iter_kvec(&m->msg_iter, dir, (const struct kvec *)iov, n,
		      min_t(size_t, len, MAX_RW_COUNT));
	return 0;
}

static void lk_iter_one(struct msghdr *m, unsigned int dir, struct kvec *v)
{
	v->iov_len = min_t(size_t, v->iov_len, MAX_RW_COUNT);
	iov_iter_kvec(&m->msg_iter, dir, v, 1, v->iov_len);
}

static int lk_send_flags(int flags)
{
	return (flags & ~LK_NO_FLAGS) | MSG_DONTWAIT | MSG_NOSIGNAL;
}

LK_API s64 lk_send(u64 handle, const void *buf, size_t len, int flags)
{
	struct kvec v = { (void *)buf, len };
	struct msghdr m = { .msg_flags = lk_send_flags(flags) };
	LK_SOCK_CALL(err, s, handle);

	lk_iter_one(&m, ITER_SOURCE, &v);
	return sock_sendmsg(s->sock, &m);
}

LK_API s64 lk_recv(u64 handle, void *buf, size_t len, int flags)
{
	struct kvec v = { buf, len };
	struct msghdr m = { };
	LK_SOCK_CALL(err, s, handle);

	lk_iter_one(&m, ITER_DEST, &v);
	return sock_recvmsg(s->sock, &m, flags | MSG_DONTWAIT);
}

/* Control messages that are plain data: no pointer, no descriptor. What is not here is refused. */
static bool lk_plain(int level, int type)
{
	switch (level) {
	case SOL_SOCKET:
		return type == SO_MARK || type == SCM_TXTIME || type == SO_TIMESTAMPING_OLD ||
		       type == SO_TIMESTAMPING_NEW;
	case SOL_IP:
		return type == IP_RETOPTS || type == IP_PKTINFO || type == IP_TTL ||
		       type == IP_TOS || type == IP_PROTOCOL;
	case SOL_IPV6:
		switch (type) {
		case IPV6_PKTINFO:
		case IPV6_2292PKTINFO:
		case IPV6_FLOWINFO:
		case IPV6_HOPOPTS:
		case IPV6_2292HOPOPTS:
		case IPV6_DSTOPTS:
		case IPV6_2292DSTOPTS:
		case IPV6_RTHDRDSTOPTS:
		case IPV6_RTHDR:
		case IPV6_2292RTHDR:
		case IPV6_HOPLIMIT:
		case IPV6_2292HOPLIMIT:
		case IPV6_TCLASS:
		case IPV6_DONTFRAG:
			return true;
		}
		return false;
	case SOL_UDP:
		return type == UDP_SEGMENT;
	}
	return false;
}

static int lk_check_control(struct lk_sock *s, struct msghdr *m)
{
	struct cmsghdr *c;

	if (m->msg_controllen > READ_ONCE(sock_net(s->sock->sk)->core.sysctl_optmem_max))
		return -ENOBUFS;
	for_each_cmsghdr(c, m)
		if (!CMSG_OK(m, c) || !lk_plain(c->cmsg_level, c->cmsg_type))
			return -EINVAL;
	return 0;
}

LK_API s64 lk_sendmsg(u64 handle, const struct lk_msg *msg, int flags)
{
	struct sockaddr_storage name;
	struct msghdr m = { .msg_flags = lk_send_flags(flags) };
	LK_SOCK_CALL(err, s, handle);

	if (msg->name_len) {
		err = msg->name_len > sizeof(name) ? -EINVAL :
						     lk_copy_addr(&name, msg->name, msg->name_len);
		if (err)
			return err;
		m.msg_name = &name;
		m.msg_namelen = msg->name_len;
	}
	if (msg->control_len) {
		m.msg_control = msg->control;
		m.msg_controllen = msg->control_len;
		err = lk_check_control(s, &m);
		if (err)
			return err;
	}
	return lk_iter(&m, ITER_SOURCE, msg->iov, msg->n) ?: sock_sendmsg(s->sock, &m);
}

LK_API s64 lk_recvmsg(u64 handle, struct lk_msg *msg, int flags)
{
	struct sockaddr_storage name;
	struct msghdr m = { };
	s64 n;
	LK_SOCK_CALL(err, s, handle);

	err = lk_iter(&m, ITER_DEST, msg->iov, msg->n);
	if (err)
		return err;
	if (msg->name_len)
		m.msg_name = &name;
	if (msg->control_len) {
		m.msg_control = msg->control;
		m.msg_controllen = msg->control_len;
	}
	m.msg_flags = flags & MSG_CMSG_CLOEXEC;		/* recvmsg(2) hands it back */
	n = sock_recvmsg(s->sock, &m, flags | MSG_DONTWAIT);
	if (n < 0)
		return n;
	memcpy(msg->name, &name, min_t(u32, msg->name_len, m.msg_namelen));
	msg->name_len = m.msg_namelen;
	msg->control_len -= m.msg_controllen;
	msg->flags = m.msg_flags;
	return n;
}
