/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LK_ELF_H
#define _LK_ELF_H
#include <asm/ptrace.h>
#define ELF_CLASS ELFCLASS64
#define ELF_DATA ELFDATA2LSB
#define ELF_ARCH EM_NONE
#define ELF_NGREG 4
typedef unsigned long elf_greg_t;
typedef elf_greg_t elf_gregset_t[ELF_NGREG];
typedef struct { int x; } elf_fpregset_t;
#define elf_check_arch(x) 0
#define ELF_HWCAP 0
#define ELF_PLATFORM NULL
#define ELF_ET_DYN_BASE 0
#define ELF_EXEC_PAGESIZE 4096
#define SET_PERSONALITY(ex) do { } while (0)
#endif
