/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LK_BUG_H
#define _LK_BUG_H

/* The host's panic operation gets the message: say in it where. */
#define HAVE_ARCH_BUG
#define BUG()	panic("BUG at %s:%d in %s()", __FILE__, __LINE__, __func__)

#include <asm-generic/bug.h>

#endif
