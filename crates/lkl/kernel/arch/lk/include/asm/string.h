/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LK_STRING_H
#define _LK_STRING_H
#define __HAVE_ARCH_MEMCPY
#define __HAVE_ARCH_MEMMOVE
#define __HAVE_ARCH_MEMSET
#define __HAVE_ARCH_MEMCMP
extern void *memcpy(void *, const void *, __kernel_size_t);
extern void *memmove(void *, const void *, __kernel_size_t);
extern void *memset(void *, int, __kernel_size_t);
extern int memcmp(const void *, const void *, __kernel_size_t);
#endif
