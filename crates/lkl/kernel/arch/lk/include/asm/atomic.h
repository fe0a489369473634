/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LK_ATOMIC_H
#define _LK_ATOMIC_H
#include <linux/types.h>
#include <asm/cmpxchg.h>
#include <asm/barrier.h>
/* One thread, no asynchronous interrupts: plain C is atomic. */
#define arch_atomic_read(v) READ_ONCE((v)->counter)
#define arch_atomic_set(v, i) WRITE_ONCE((v)->counter, (i))
#define arch_atomic64_read(v) READ_ONCE((v)->counter)
#define arch_atomic64_set(v, i) WRITE_ONCE((v)->counter, (i))
#define LK_OP(pfx, T, A, op, c)							\
static __always_inline void arch_##pfx##_##op(T i, A *v)			\
{										\
	v->counter = v->counter c i;						\
}
#define LK_FETCH(pfx, T, A, op, c)						\
static __always_inline T arch_##pfx##_fetch_##op(T i, A *v)			\
{										\
	T o = v->counter;							\
	v->counter = o c i;							\
	return o;								\
}
#define LK_RETURN(pfx, T, A, op, c)						\
static __always_inline T arch_##pfx##_##op##_return(T i, A *v)			\
{										\
	return v->counter = v->counter c i;					\
}
#define LK_ALL(pfx, T, A)							\
	LK_OP(pfx, T, A, add, +) LK_OP(pfx, T, A, sub, -) LK_OP(pfx, T, A, and, &)	\
	LK_OP(pfx, T, A, or, |) LK_OP(pfx, T, A, xor, ^)			\
	LK_FETCH(pfx, T, A, add, +) LK_FETCH(pfx, T, A, sub, -)			\
	LK_FETCH(pfx, T, A, and, &) LK_FETCH(pfx, T, A, or, |)			\
	LK_FETCH(pfx, T, A, xor, ^)						\
	LK_RETURN(pfx, T, A, add, +) LK_RETURN(pfx, T, A, sub, -)
LK_ALL(atomic, int, atomic_t)
LK_ALL(atomic64, s64, atomic64_t)
#define ATOMIC64_INIT(i) { (i) }
#define arch_atomic_add_return arch_atomic_add_return
#define arch_atomic_sub_return arch_atomic_sub_return
#define arch_atomic_fetch_add arch_atomic_fetch_add
#define arch_atomic_fetch_sub arch_atomic_fetch_sub
#define arch_atomic_fetch_and arch_atomic_fetch_and
#define arch_atomic_fetch_or arch_atomic_fetch_or
#define arch_atomic_fetch_xor arch_atomic_fetch_xor
#define arch_atomic64_add_return arch_atomic64_add_return
#define arch_atomic64_sub_return arch_atomic64_sub_return
#define arch_atomic64_fetch_add arch_atomic64_fetch_add
#define arch_atomic64_fetch_sub arch_atomic64_fetch_sub
#define arch_atomic64_fetch_and arch_atomic64_fetch_and
#define arch_atomic64_fetch_or arch_atomic64_fetch_or
#define arch_atomic64_fetch_xor arch_atomic64_fetch_xor
#endif
