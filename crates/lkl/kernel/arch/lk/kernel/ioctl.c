// SPDX-License-Identifier: GPL-2.0-only
/* ioctl(2) on sockets: requests that ask, and whose argument holds no pointer. */
#include <linux/if.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/netdevice.h>
#include <linux/sockios.h>
#include <linux/string.h>
#include <net/sock.h>
#include <asm/ioctls.h>
#include "lk_sock.h"

union lk_ioctl_arg {
	struct ifreq interface;
	long long time[2];
	int number;
};

/* All that there are, and the bytes that each reads and writes. 0: it sets something. */
static const struct lk_ioctl {
	u32 request;
	u32 size;
} lk_ioctls[] = {
	{ SIOCINQ, sizeof(int) },
	{ SIOCOUTQ, sizeof(int) },
	{ SIOCOUTQNSD, sizeof(int) },
	{ SIOCATMARK, sizeof(int) },
	{ SIOCGSTAMP_OLD, sizeof(long long[2]) },
	{ SIOCGSTAMPNS_OLD, sizeof(long long[2]) },
	{ SIOCGSTAMP_NEW, sizeof(long long[2]) },
	{ SIOCGSTAMPNS_NEW, sizeof(long long[2]) },
	{ SIOCGIFNAME, sizeof(struct ifreq) },
	{ SIOCGIFINDEX, sizeof(struct ifreq) },
	{ SIOCGIFFLAGS, sizeof(struct ifreq) },
	{ SIOCGIFADDR, sizeof(struct ifreq) },
	{ SIOCGIFDSTADDR, sizeof(struct ifreq) },
	{ SIOCGIFBRDADDR, sizeof(struct ifreq) },
	{ SIOCGIFNETMASK, sizeof(struct ifreq) },
	{ SIOCGIFMETRIC, sizeof(struct ifreq) },
	{ SIOCGIFMTU, sizeof(struct ifreq) },
	{ SIOCGIFHWADDR, sizeof(struct ifreq) },
	{ SIOCGIFTXQLEN, sizeof(struct ifreq) },
	{ SIOCGIFMAP, sizeof(struct ifreq) },
	{ SIOCADDRT }, { SIOCDELRT },
	{ SIOCSIFLINK }, { SIOCSIFFLAGS }, { SIOCSIFADDR }, { SIOCSIFDSTADDR }, { SIOCSIFBRDADDR },
	{ SIOCSIFNETMASK }, { SIOCSIFMETRIC }, { SIOCSIFMEM }, { SIOCSIFMTU }, { SIOCSIFNAME },
	{ SIOCSIFHWADDR }, { SIOCSIFENCAP }, { SIOCSIFSLAVE }, { SIOCADDMULTI }, { SIOCDELMULTI },
	{ SIOCSIFPFLAGS }, { SIOCDIFADDR }, { SIOCSIFHWBROADCAST }, { SIOCSIFBR }, { SIOCSIFTXQLEN },
	{ SIOCSMIIREG }, { SIOCDARP }, { SIOCSARP }, { SIOCSIFMAP }, { SIOCSIFVLAN },
	{ SIOCBRADDBR }, { SIOCBRDELBR }, { SIOCBRADDIF }, { SIOCBRDELIF }, { SIOCSHWTSTAMP },
};

static const struct lk_ioctl *lk_ioctl_find(u32 request)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(lk_ioctls); i++)
		if (lk_ioctls[i].request == request)
			return &lk_ioctls[i];
	return NULL;
}

/* As sock_ioctl() and sock_do_ioctl() have it. Without an MMU "user" pointers are plain pointers. */
static int lk_ioctl_do(struct socket *sock, u32 request, union lk_ioctl_arg *arg)
{
	const struct proto_ops *ops = READ_ONCE(sock->ops);
	bool copy;
	int err;

	switch (request) {
	case SIOCGSTAMP_OLD:
	case SIOCGSTAMPNS_OLD:
	case SIOCGSTAMP_NEW:
	case SIOCGSTAMPNS_NEW:
		if (!ops->gettstamp)
			return -ENOTTY;
		return ops->gettstamp(sock, (void __user *)arg,
				      request == SIOCGSTAMP_OLD || request == SIOCGSTAMP_NEW,
				      false);
	}
	err = ops->ioctl(sock, request, (unsigned long)arg);
	if (err != -ENOIOCTLCMD)
		return err;
	if (_IOC_TYPE(request) != SOCK_IOC_TYPE)
		return -ENOTTY;
	return dev_ioctl(sock_net(sock->sk), request, &arg->interface, NULL, &copy);
}

LK_API int lk_ioctl(u64 handle, u32 request, void *arg, u32 len)
{
	const struct lk_ioctl *i = lk_ioctl_find(request);
	union lk_ioctl_arg copy = { };
	LK_SOCK_CALL(err, s, handle);

	if (!i)
		return -ENOTTY;
	if (!i->size)
		return -EPERM;
	if (len < i->size)
		return -EINVAL;
	memcpy(&copy, arg, i->size);
	err = lk_ioctl_do(s->sock, request, &copy);
	if (!err)
		memcpy(arg, &copy, i->size);
	return err;
}

LK_API int lk_ifconf(u64 handle, void *buf, int len)
{
	struct ifconf c = { .ifc_len = len, .ifc_buf = (void __user *)buf };
	LK_SOCK_CALL(err, s, handle);

	if (len < 0)
		return -EINVAL;
	return dev_ifconf(sock_net(s->sock->sk), (void __user *)&c) ?: c.ifc_len;
}
