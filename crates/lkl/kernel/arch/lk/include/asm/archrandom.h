/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LK_ARCHRANDOM_H
#define _LK_ARCHRANDOM_H

/* The host's entropy, credited at boot: the generator is ready at once. */
size_t lk_host_random(void *p, size_t n);

static inline size_t arch_get_random_longs(unsigned long *v, size_t n)
{
	return 0;
}

static inline size_t arch_get_random_seed_longs(unsigned long *v, size_t n)
{
	return lk_host_random(v, n * sizeof(long)) / sizeof(long);
}

#endif
