/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LK_CSUM_H
#define _LK_CSUM_H
unsigned int do_csum(const unsigned char *buff, int len);
#define do_csum do_csum
#include <asm-generic/checksum.h>
#endif
