// SPDX-License-Identifier: GPL-2.0-only
/* Constants for switch.S. */
#include <linux/kbuild.h>
#include <linux/stddef.h>
#include "lk_int.h"

int main(void)
{
	OFFSET(LK_OPS_MEMCPY, lk_host_ops, memcpy);
	OFFSET(LK_OPS_MEMMOVE, lk_host_ops, memmove);
	OFFSET(LK_OPS_MEMSET, lk_host_ops, memset);
	OFFSET(LK_OPS_MEMCMP, lk_host_ops, memcmp);
	return 0;
}
