/*
 * What the daemon's userfaultfd calls shall answer instead of reaching the kernel: a file that the
 * test program and inject.so, which is preloaded into the daemon, both have mapped.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

enum inject_call { INJECT_COPY, INJECT_ZEROPAGE, INJECT_PROTECT, INJECT_CALLS };

struct inject {
	_Atomic int32_t error;                /* an errno */
	_Atomic uint32_t fail[INJECT_CALLS];  /* that many calls fail, from now on */
	_Atomic uint32_t failed[INJECT_CALLS];
};
