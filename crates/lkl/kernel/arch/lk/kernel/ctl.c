// SPDX-License-Identifier: GPL-2.0-only
/* Interfaces, addresses and routes by rtnetlink; sysctls by /proc. */
#include <linux/fs.h>
#include <linux/inet.h>
#include <linux/inetdevice.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/net.h>
#include <linux/nsproxy.h>
#include <linux/rtnetlink.h>
#include <linux/string.h>
#include <linux/unaligned.h>
#include <net/netlink.h>
#include "lk_int.h"

struct lk_request {
	struct nlmsghdr head;
	union {
		struct ifinfomsg link;
		struct ifaddrmsg addr;
		struct rtmsg route;
	};
	u8 attrs[96];
};

static void lk_attr(struct lk_request *q, int type, const void *data, int len)
{
	struct nlattr *a = (void *)q + NLMSG_ALIGN(q->head.nlmsg_len);

	a->nla_type = type;
	a->nla_len = nla_attr_size(len);
	memcpy(nla_data(a), data, len);
	q->head.nlmsg_len = NLMSG_ALIGN(q->head.nlmsg_len) + nla_total_size(len);
}

/* rtnetlink answers within sendmsg(): no wait. */
static int lk_talk(struct lk_request *q)
{
	static struct socket *nl;
	struct { struct nlmsghdr head; struct nlmsgerr error; u8 rest[160]; } answer;
	struct msghdr m = { .msg_flags = MSG_DONTWAIT };
	struct kvec out = { q, q->head.nlmsg_len }, in = { &answer, sizeof(answer) };
	int err;

	if (!nl) {
		struct socket *sock;

		err = sock_create(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, &sock);
		if (err)
			return err;
		sock->file = &lk_file;	/* its credentials are what is checked */
		nl = sock;
	}
	q->head.nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	err = kernel_sendmsg(nl, &m, &out, 1, out.iov_len);
	if (err < 0)
		return err;
	memset(&m, 0, sizeof(m));
	err = kernel_recvmsg(nl, &m, &in, 1, sizeof(answer), MSG_DONTWAIT);
	if (err < 0)
		return err;
	if (err < NLMSG_LENGTH(sizeof(int)) || answer.head.nlmsg_type != NLMSG_ERROR)
		return -EPROTO;
	return answer.error.error;
}

LK_API int lk_if_up(int ifindex)
{
	struct lk_request q = {
		.head = { .nlmsg_len = NLMSG_LENGTH(sizeof(q.link)), .nlmsg_type = RTM_NEWLINK },
		.link = { .ifi_index = ifindex, .ifi_flags = IFF_UP, .ifi_change = IFF_UP },
	};
	LK_CALL(err);

	return err ?: lk_talk(&q);
}

/* The length of an address, 0 for a family or prefix length that does not exist. */
static int lk_addr_len(int family, int plen)
{
	int len = family == AF_INET ? 4 : family == AF_INET6 ? 16 : 0;

	return plen < 0 || plen > len * 8 ? 0 : len;
}

LK_API int lk_addr_add(int ifindex, int family, const u8 *addr, int plen)
{
	struct lk_request q = {
		.head = {
			.nlmsg_len = NLMSG_LENGTH(sizeof(q.addr)),
			.nlmsg_type = RTM_NEWADDR,
			.nlmsg_flags = NLM_F_CREATE | NLM_F_EXCL,
		},
		.addr = { .ifa_family = family, .ifa_prefixlen = plen, .ifa_index = ifindex },
	};
	int len = lk_addr_len(family, plen);
	LK_CALL(err);

	if (err)
		return err;
	if (!len)
		return -EINVAL;
	if (family == AF_INET6)
		q.addr.ifa_flags = IFA_F_NODAD;
	lk_attr(&q, IFA_LOCAL, addr, len);
	lk_attr(&q, IFA_ADDRESS, addr, len);
	if (family == AF_INET && plen < 31) {
		__be32 broadcast = get_unaligned((__be32 *)addr) | ~inet_make_mask(plen);

		lk_attr(&q, IFA_BROADCAST, &broadcast, sizeof(broadcast));
	}
	err = lk_talk(&q);
	/* An IPv6 address stays tentative until a kernel thread has looked at it. */
	if (!err && family == AF_INET6)
		lk_do_poll();
	return err;
}

LK_API int lk_route_add(int ifindex, int family, const u8 *dst, int plen, const u8 *gw)
{
	struct lk_request q = {
		.head = {
			.nlmsg_len = NLMSG_LENGTH(sizeof(q.route)),
			.nlmsg_type = RTM_NEWROUTE,
			.nlmsg_flags = NLM_F_CREATE | NLM_F_EXCL,
		},
		.route = {
			.rtm_family = family,
			.rtm_dst_len = plen,
			.rtm_table = RT_TABLE_MAIN,
			.rtm_protocol = RTPROT_STATIC,
			.rtm_type = RTN_UNICAST,
			.rtm_scope = gw ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK,
		},
	};
	int len = lk_addr_len(family, plen);
	LK_CALL(err);

	if (err)
		return err;
	if (!len)
		return -EINVAL;
	lk_attr(&q, RTA_DST, dst, len);
	lk_attr(&q, RTA_OIF, &ifindex, sizeof(ifindex));
	if (gw)
		lk_attr(&q, RTA_GATEWAY, gw, len);
	return lk_talk(&q);
}

static struct file *lk_proc_open(const char *path, int flags)
{
	static struct vfsmount *proc;

	if (!proc) {
		struct file_system_type *type = get_fs_type("proc");
		struct vfsmount *mnt;

		if (!type)
			return ERR_PTR(-ENOENT);
		mnt = kern_mount(type);
		put_filesystem(type);
		if (IS_ERR(mnt))
			return ERR_CAST(mnt);
		proc = mnt;
	}
	return file_open_root_mnt(proc, path, flags, 0);
}

LK_API s64 lk_read_file(const char *path, void *buf, size_t len)
{
	struct file *f;
	loff_t pos = 0;
	ssize_t n = 0;
	size_t got = 0;
	LK_CALL(err);

	if (err)
		return err;
	f = lk_proc_open(path, O_RDONLY);
	if (IS_ERR(f))
		return PTR_ERR(f);
	while (got < len) {
		n = vfs_read(f, (char __user *)buf + got, len - got, &pos);
		if (n <= 0)
			break;
		got += n;
	}
	__fput_sync(f);
	return n < 0 ? n : got;
}

LK_API s64 lk_write_file(const char *path, const void *buf, size_t len)
{
	struct file *f;
	loff_t pos = 0;
	ssize_t n;
	LK_CALL(err);

	if (err)
		return err;
	f = lk_proc_open(path, O_WRONLY);
	if (IS_ERR(f))
		return PTR_ERR(f);
	/* proc files other than sysctls have no write_iter, which kernel_write() wants */
	n = vfs_write(f, (const char __user *)buf, len, &pos);
	__fput_sync(f);
	return n;
}
