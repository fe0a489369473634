// SPDX-License-Identifier: GPL-2.0-only
/* The Internet checksum (RFC 1071), 64 bytes a step in two chains of add with carry. */
#include <linux/bitops.h>
#include <linux/types.h>
#include <linux/unaligned.h>
#include <net/checksum.h>

unsigned int do_csum(const unsigned char *p, int len)
{
	bool odd = (unsigned long)p & 1;
	unsigned __int128 s;
	u64 a = 0, b = 0;

	if (len <= 0)
		return 0;
	if (odd) {
		a = (u64)*p++ << 8;
		len--;
	}
	while (len >= 64) {
		asm("addq 0(%2),%0\n\t"
		    "adcq 8(%2),%0\n\t"
		    "adcq 16(%2),%0\n\t"
		    "adcq 24(%2),%0\n\t"
		    "adcq $0,%0\n\t"
		    "addq 32(%2),%1\n\t"
		    "adcq 40(%2),%1\n\t"
		    "adcq 48(%2),%1\n\t"
		    "adcq 56(%2),%1\n\t"
		    "adcq $0,%1"
		    : "+&r"(a), "+&r"(b)
		    : "r"(p), "m"(*(const char (*)[64])p)
		    : "cc");
		p += 64;
		len -= 64;
	}
	s = (unsigned __int128)a + b;
	while (len >= 8) {
		s += get_unaligned((u64 *)p);
		p += 8;
		len -= 8;
	}
	if (len & 4) {
		s += get_unaligned((u32 *)p);
		p += 4;
	}
	if (len & 2) {
		s += get_unaligned((u16 *)p);
		p += 2;
	}
	if (len & 1)
		s += *p;
	/* fold 128 bits to 64, 32, 16 */
	a = (u64)s + (u64)(s >> 64);
	if (a < (u64)s)
		a++;
	a = (a & 0xffffffff) + (a >> 32);
	a = (a & 0xffffffff) + (a >> 32);
	a = (a & 0xffff) + (a >> 16);
	a = (a & 0xffff) + (a >> 16);
	return odd ? swab16(a) : a;
}
