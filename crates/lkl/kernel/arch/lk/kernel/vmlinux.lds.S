/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A shared object with the kernel's own sections between their start and end symbols. Everything
 * is hidden and relocations are relative and packed, so loading costs next to nothing.
 */
#define LOAD_OFFSET 0
#include <asm/page.h>
#include <asm/cache.h>
#include <asm/thread_info.h>
#include <asm-generic/vmlinux.lds.h>
OUTPUT_FORMAT("elf64-x86-64")
OUTPUT_ARCH(i386:x86-64)
jiffies = jiffies_64;
PHDRS
{
	text PT_LOAD FILEHDR PHDRS FLAGS(5);
	data PT_LOAD FLAGS(6);
	dynamic PT_DYNAMIC FLAGS(6);
	stack PT_GNU_STACK FLAGS(6);
}
SECTIONS
{
	. = SIZEOF_HEADERS;
	_text = .;
	.hash : { *(.hash) } :text
	.gnu.hash : { *(.gnu.hash) }
	.dynsym : { *(.dynsym) }
	.dynstr : { *(.dynstr) }
	.gnu.version : { *(.gnu.version) }
	.gnu.version_d : { *(.gnu.version_d) }
	.gnu.version_r : { *(.gnu.version_r) }
	.rela.dyn : { *(.rela.*) }
	.relr.dyn : { *(.relr.dyn) }
	. = ALIGN(PAGE_SIZE);
	_stext = .;
	.text : {
		TEXT_TEXT
		SCHED_TEXT
		LOCK_TEXT
		KPROBES_TEXT
		IRQENTRY_TEXT
		SOFTIRQENTRY_TEXT
		*(.text.*)
		*(.fixup)
	} :text
	.plt : { *(.plt .plt.*) }
	_etext = .;
	. = ALIGN(PAGE_SIZE);
	__init_begin = .;
	_sinittext = .;
	.init.text : { INIT_TEXT }
	.exit.text : { EXIT_TEXT }
	_einittext = .;
	.eh_frame : { KEEP(*(.eh_frame)) }
	. = ALIGN(PAGE_SIZE);
	_sdata = .;
	.data.rel.ro : { *(.data.rel.ro .data.rel.ro.*) } :data
	RO_DATA(PAGE_SIZE)
	INIT_DATA_SECTION(16)
	.exit.data : { EXIT_DATA }
	PERCPU_SECTION(L1_CACHE_BYTES)
	__init_end = .;
	RW_DATA(L1_CACHE_BYTES, PAGE_SIZE, THREAD_SIZE)
	.data.rel : { *(.data.rel .data.rel.*) }
	.got : { *(.got) *(.got.plt) }
	EXCEPTION_TABLE(16)
	_edata = .;
	.dynamic : { *(.dynamic) } :data :dynamic
	.fill : { BYTE(0) } :data
	BSS_SECTION(0, PAGE_SIZE, 0)
	_end = .;
	STABS_DEBUG
	DWARF_DEBUG
	ELF_DETAILS
	DISCARDS
}
