/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LK_CMPXCHG_H
#define _LK_CMPXCHG_H

/* One thread, no asynchronous interrupts: plain C is atomic. */
#define arch_xchg(ptr, x) ({						\
	__typeof__(ptr) __xp = (ptr);					\
	__typeof__(*__xp) __xo = *(volatile __typeof__(*__xp) *)__xp;	\
	*(volatile __typeof__(*__xp) *)__xp = (__typeof__(*__xp))(x);	\
	__xo;								\
})
#define arch_cmpxchg(ptr, o, n) ({					\
	__typeof__(ptr) __cp = (ptr);					\
	__typeof__(*__cp) __co = *(volatile __typeof__(*__cp) *)__cp;	\
	if (__co == (__typeof__(*__cp))(o))				\
		*(volatile __typeof__(*__cp) *)__cp = (__typeof__(*__cp))(n); \
	__co;								\
})
#define arch_cmpxchg_local	arch_cmpxchg
#define arch_cmpxchg64		arch_cmpxchg
#define arch_cmpxchg64_local	arch_cmpxchg
#define arch_cmpxchg_relaxed	arch_cmpxchg
#define arch_cmpxchg_acquire	arch_cmpxchg
#define arch_cmpxchg_release	arch_cmpxchg
#define arch_cmpxchg64_relaxed	arch_cmpxchg
#define arch_cmpxchg64_acquire	arch_cmpxchg
#define arch_cmpxchg64_release	arch_cmpxchg
#define arch_xchg_relaxed	arch_xchg
#define arch_xchg_acquire	arch_xchg
#define arch_xchg_release	arch_xchg

#endif
