// SPDX-License-Identifier: GPL-2.0-only
/* An Ethernet device whose wire is the host. */
#include <linux/etherdevice.h>
#include <linux/if_vlan.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include "lk_int.h"

#define LK_MAX_MTU	65520
#define LK_RX_QUEUE	4096	/* frames */
#define LK_RX_LINEAR	2048	/* longer frames are received into page fragments */
#define LK_RX_HEADERS	256

struct lk_nic {
	struct lk_object object;	/* first */
	struct net_device *dev;
	struct napi_struct napi;
	struct sk_buff_head rxq;
	struct sk_buff *held;
	struct lk_nic_cfg cfg;
	bool gone;
};

struct lk_nic_priv {
	struct lk_nic *nic;
};

static struct lk_nic *lk_nic_of(struct net_device *dev)
{
	return ((struct lk_nic_priv *)netdev_priv(dev))->nic;
}

/* 0: gone. -EBUSY: the host is busy, the skb is still ours. */
static int lk_nic_try(struct lk_nic *nic, struct sk_buff *skb)
{
	struct lk_iov iov[MAX_SKB_FRAGS + 1];
	int i, n = 0;

	if (nic->gone) {
		dev_core_stats_tx_dropped_inc(nic->dev);
		kfree_skb(skb);
		return 0;
	}
	iov[n].base = skb->data;
	iov[n++].len = skb_headlen(skb);
	for (i = 0; i < skb_shinfo(skb)->nr_frags; i++) {
		skb_frag_t *f = &skb_shinfo(skb)->frags[i];

		iov[n].base = skb_frag_address(f);
		iov[n++].len = skb_frag_size(f);
	}
	if (nic->cfg.xmit(nic->cfg.opaque, iov, n, skb->len) < 0)
		return -EBUSY;
	dev_sw_netstats_tx_add(nic->dev, 1, skb->len);
	consume_skb(skb);
	return 0;
}

/*
 * Never NETDEV_TX_BUSY: the qdisc requeues such a frame behind others, so a second refusal
 * reorders. We keep the one refused frame ourselves, with the queue stopped.
 */
static netdev_tx_t lk_nic_xmit(struct sk_buff *skb, struct net_device *dev)
{
	struct lk_nic *nic = lk_nic_of(dev);

	if (lk_nic_try(nic, skb)) {
		nic->held = skb;
		netif_stop_queue(dev);
	}
	return NETDEV_TX_OK;
}

static int lk_nic_poll(struct napi_struct *napi, int budget)
{
	struct lk_nic *nic = container_of(napi, struct lk_nic, napi);
	struct sk_buff *skb;
	int n = 0;

	while (n < budget && (skb = __skb_dequeue(&nic->rxq))) {
		n++;
		dev_sw_netstats_rx_add(nic->dev, skb->len);
		skb->protocol = eth_type_trans(skb, nic->dev);
		if (nic->cfg.flags & LK_NIC_GRO)
			napi_gro_receive(napi, skb);
		else
			netif_receive_skb(skb);
	}
	if (n < budget)
		napi_complete_done(napi, n);
	return n;
}

/* Large frames go into pages: no dependence on physically contiguous memory. */
static struct sk_buff *lk_nic_skb(struct lk_nic *nic, const void *frame, u32 len)
{
	struct sk_buff *skb;
	int err;

	if (len <= LK_RX_LINEAR) {
		skb = __netdev_alloc_skb(nic->dev, len + NET_IP_ALIGN, GFP_ATOMIC | __GFP_NOWARN);
		if (!skb)
			return NULL;
		skb_reserve(skb, NET_IP_ALIGN);
		skb_put_data(skb, frame, len);
		return skb;
	}
	skb = alloc_skb_with_frags(NET_IP_ALIGN + LK_RX_HEADERS, len - LK_RX_HEADERS,
				   PAGE_ALLOC_COSTLY_ORDER, &err, GFP_ATOMIC | __GFP_NOWARN);
	if (!skb)
		return NULL;
	skb_reserve(skb, NET_IP_ALIGN);
	skb_put(skb, LK_RX_HEADERS);
	skb->data_len = len - LK_RX_HEADERS;
	skb->len += skb->data_len;
	skb->dev = nic->dev;
	if (skb_store_bits(skb, 0, frame, len)) {
		kfree_skb(skb);
		return NULL;
	}
	return skb;
}

LK_API int lk_nic_rx(u64 handle, const void *frame, u32 len)
{
	struct lk_nic *nic;
	struct sk_buff *skb;
	LK_CALL(err);

	if (err)
		return err;
	nic = (struct lk_nic *)lk_handle_get(handle, LK_NIC);
	if (!nic)
		return -EBADF;
	if (len < ETH_HLEN || len > LK_MAX_MTU + VLAN_ETH_HLEN)
		return -EINVAL;
	if (!netif_running(nic->dev))
		return -ENETDOWN;
	if (skb_queue_len(&nic->rxq) >= LK_RX_QUEUE) {
		dev_core_stats_rx_dropped_inc(nic->dev);
		return -ENOBUFS;
	}
	skb = lk_nic_skb(nic, frame, len);
	if (!skb) {
		dev_core_stats_rx_dropped_inc(nic->dev);
		return -ENOMEM;
	}
	if (nic->cfg.flags & LK_NIC_RXCSUM)
		skb->ip_summed = CHECKSUM_UNNECESSARY;
	__skb_queue_tail(&nic->rxq, skb);
	local_bh_disable();
	napi_schedule(&nic->napi);
	/* No local_bh_enable(): the soft interrupt is for lk_poll(), after a batch of frames. */
	_local_bh_enable();
	return 0;
}

LK_API int lk_nic_wake(u64 handle)
{
	struct lk_nic *nic;
	struct sk_buff *skb;
	LK_CALL(err);

	if (err)
		return err;
	nic = (struct lk_nic *)lk_handle_get(handle, LK_NIC);
	if (!nic)
		return -EBADF;
	skb = nic->held;
	if (!skb || lk_nic_try(nic, skb))
		return 0;
	nic->held = NULL;
	netif_wake_queue(nic->dev);
	return 0;
}

static int lk_nic_open(struct net_device *dev)
{
	netif_start_queue(dev);
	return 0;
}

static int lk_nic_stop(struct net_device *dev)
{
	struct lk_nic *nic = lk_nic_of(dev);

	netif_stop_queue(dev);
	__skb_queue_purge(&nic->rxq);
	kfree_skb(nic->held);
	nic->held = NULL;
	return 0;
}

static const struct net_device_ops lk_nic_ops = {
	.ndo_open = lk_nic_open,
	.ndo_stop = lk_nic_stop,
	.ndo_start_xmit = lk_nic_xmit,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
};

static void lk_nic_setup(struct net_device *dev)
{
	ether_setup(dev);
	dev->netdev_ops = &lk_nic_ops;
	dev->max_mtu = LK_MAX_MTU;
	dev->pcpu_stat_type = NETDEV_PCPU_STAT_TSTATS;
	dev->lltx = true;
}

LK_API s64 lk_nic_add(const struct lk_nic_cfg *cfg, int *ifindex)
{
	struct net_device *dev;
	struct lk_nic *nic;
	LK_CALL(err);

	if (err)
		return err;
	if (!cfg->xmit || cfg->mtu < ETH_MIN_MTU || cfg->mtu > LK_MAX_MTU ||
	    !is_valid_ether_addr(cfg->mac))
		return -EINVAL;
	nic = kzalloc(sizeof(*nic), GFP_KERNEL);
	if (!nic)
		return -ENOMEM;
	err = -ENOMEM;
	dev = alloc_netdev(sizeof(struct lk_nic_priv), "eth%d", NET_NAME_ENUM, lk_nic_setup);
	if (!dev)
		goto free_nic;
	((struct lk_nic_priv *)netdev_priv(dev))->nic = nic;
	nic->dev = dev;
	nic->cfg = *cfg;
	skb_queue_head_init(&nic->rxq);
	dev->mtu = cfg->mtu;
	eth_hw_addr_set(dev, cfg->mac);
	if (cfg->flags & LK_NIC_TXCSUM)
		dev->features = NETIF_F_HW_CSUM | NETIF_F_SG;
	dev->hw_features = dev->features;
	netif_napi_add(dev, &nic->napi, lk_nic_poll);
	err = lk_handle_add(&nic->object, LK_NIC);
	if (err)
		goto free_dev;
	err = register_netdev(dev);
	if (err)
		goto free_handle;
	napi_enable(&nic->napi);
	*ifindex = dev->ifindex;
	err = 0;
	return nic->object.handle;

free_handle:
	lk_handle_del(&nic->object);
free_dev:
	free_netdev(dev);
free_nic:
	kfree(nic);
	return err;
}

/* The devices stay, without a wire: unregistering would wait for RCU, for nobody's benefit. */
void lk_nic_detach_all(void)
{
	struct lk_object *o;
	unsigned long at = 0;

	while ((o = lk_handle_any(LK_NIC, &at))) {
		((struct lk_nic *)o)->gone = true;
		lk_handle_del(o);
	}
}
