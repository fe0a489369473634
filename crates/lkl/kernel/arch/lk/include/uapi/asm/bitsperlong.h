/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LK_BPL_H
#define _LK_BPL_H
#define __BITS_PER_LONG 64
#include <asm-generic/bitsperlong.h>
#endif
