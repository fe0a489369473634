/* SPDX-License-Identifier: GPL-2.0-only */
/* What cannot be said in C: switching stacks, and tail calls to the host. */
#include <linux/linkage.h>
#include <generated/asm-offsets.h>

	.text

	.macro LK_FUNC name
	.globl \name
	.hidden \name
	.type \name, @function
\name:
	.endm

	.macro LK_END name
	.size \name, . - \name
	.endm

/* struct task_struct *lk_swtch(prev, unsigned long *save, unsigned long sp): returns prev */
LK_FUNC lk_swtch
	pushq %rbp
	pushq %rbx
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp, (%rsi)
	movq %rdx, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbx
	popq %rbp
	movq %rdi, %rax
	ret
LK_END lk_swtch

/* The first switch to a new task: rax = previous task, rbx = function, r12 = its argument. */
LK_FUNC lk_ret_from_fork
	movq %rax, %rdi
	call schedule_tail
	movq %r12, %rdi
	call *%rbx
	ud2
LK_END lk_ret_from_fork

/* The same for the boot stack, with no previous task. */
LK_FUNC lk_first
	call *%rbx
	ud2
LK_END lk_first

/* The host's libc has the fastest ones for this CPU. */
LK_FUNC memcpy
	jmp *lk_ops+LK_OPS_MEMCPY(%rip)
LK_END memcpy

LK_FUNC memmove
	jmp *lk_ops+LK_OPS_MEMMOVE(%rip)
LK_END memmove

LK_FUNC memset
	jmp *lk_ops+LK_OPS_MEMSET(%rip)
LK_END memset

LK_FUNC memcmp
	jmp *lk_ops+LK_OPS_MEMCMP(%rip)
LK_END memcmp

	.section .note.GNU-stack,"",@progbits
