/* SPDX-License-Identifier: GPL-2.0-only */
/* Without an MMU there is nothing to say. */
