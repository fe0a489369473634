/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _UAPI_LK_SIGCTX_H
#define _UAPI_LK_SIGCTX_H
struct sigcontext { unsigned long oldmask; };
#endif
