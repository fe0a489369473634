/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LK_PGTABLE_H
#define _LK_PGTABLE_H
#include <asm-generic/pgtable-nopud.h>
#include <asm/processor.h>
#include <asm/page.h>
#define pgd_present(x) 1
#define pgd_none(x) 0
#define pgd_bad(x) 0
#define pgd_clear(x)
#define PAGE_NONE __pgprot(0)
#define PAGE_SHARED __pgprot(0)
#define PAGE_COPY __pgprot(0)
#define PAGE_READONLY __pgprot(0)
#define PAGE_KERNEL __pgprot(0)
#define PMD_SHIFT 21
#define PMD_SIZE (1UL << PMD_SHIFT)
#define PGDIR_SHIFT 30
#define swapper_pg_dir ((pgd_t *)0)
extern void *lk_zero_page;
#define ZERO_PAGE(v) virt_to_page(lk_zero_page)
#define VMALLOC_START 0UL
#define VMALLOC_END (~0UL)
#define KMAP_START 0UL
#define KMAP_END (~0UL)
#endif
