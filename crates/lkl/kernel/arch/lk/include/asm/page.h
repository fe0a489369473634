/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LK_PAGE_H
#define _LK_PAGE_H

#include <linux/const.h>

#define PAGE_SHIFT	CONFIG_PAGE_SHIFT
#define PAGE_SIZE	(_AC(1, UL) << PAGE_SHIFT)
#define PAGE_MASK	(~(PAGE_SIZE - 1))

#ifndef __ASSEMBLY__
#include <linux/types.h>
#include <linux/pfn.h>

/*
 * The one memory bank is what the host gave us. "Physical" addresses are small on purpose:
 * free_area_init() walks every pageblock from pfn 0 (40 ms of boot if physical were virtual).
 * Not 0 either: memblock takes 0 for failure.
 */
extern unsigned long lk_mem_start, lk_mem_end;
#define LK_PHYS_BASE	0x400000UL
#define PAGE_OFFSET	lk_mem_start
#define ARCH_PFN_OFFSET	(LK_PHYS_BASE >> PAGE_SHIFT)

#define clear_page(p)			memset((p), 0, PAGE_SIZE)
#define copy_page(to, from)		memcpy((to), (from), PAGE_SIZE)
#define clear_user_page(p, v, pg)	clear_page(p)
#define copy_user_page(to, from, v, pg)	copy_page(to, from)

typedef struct { unsigned long pte; } pte_t;
typedef struct { unsigned long pmd; } pmd_t;
typedef struct { unsigned long pgd; } pgd_t;
typedef struct { unsigned long pgprot; } pgprot_t;
typedef struct page *pgtable_t;
#define pte_val(x)	((x).pte)
#define pmd_val(x)	((x).pmd)
#define pgd_val(x)	((x).pgd)
#define pgprot_val(x)	((x).pgprot)
#define __pte(x)	((pte_t){ (x) })
#define __pmd(x)	((pmd_t){ (x) })
#define __pgd(x)	((pgd_t){ (x) })
#define __pgprot(x)	((pgprot_t){ (x) })

#define __pa(x)		((unsigned long)(x) - lk_mem_start + LK_PHYS_BASE)
#define __va(x)		((void *)((unsigned long)(x) - LK_PHYS_BASE + lk_mem_start))
#define virt_to_pfn(v)	(__pa(v) >> PAGE_SHIFT)
#define pfn_to_virt(p)	__va((unsigned long)(p) << PAGE_SHIFT)
#define virt_to_page(v)	pfn_to_page(virt_to_pfn(v))
#define page_to_virt(pg) pfn_to_virt(page_to_pfn(pg))
#define page_to_phys(pg) ((phys_addr_t)page_to_pfn(pg) << PAGE_SHIFT)
#define virt_addr_valid(v) \
	((unsigned long)(v) >= lk_mem_start && (unsigned long)(v) < lk_mem_end)
#endif

#include <asm-generic/memory_model.h>
#include <asm-generic/getorder.h>

#endif
