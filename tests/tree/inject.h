/*
 * What the daemon's userfaultfd calls shall answer instead of reaching the kernel, and which of them
 * waits for the test program: a file that the program and inject.so, which is preloaded into the
 * daemon, both have mapped.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

enum inject_call {
	INJECT_COPY,
	INJECT_ZEROPAGE,
	INJECT_PROTECT,
	INJECT_CALLS, /* those that can fail; the others are noted only */
	INJECT_REGISTER,
	INJECT_QUERY, /* PROCMAP_QUERY */
};

#define INJECT_NOTES 64

struct inject_note {
	uint32_t call;
	uint64_t address;
};

struct inject {
	_Atomic int32_t error;                /* an errno */
	_Atomic uint32_t fail[INJECT_CALLS];  /* that many calls fail, from now on */
	_Atomic uint32_t failed[INJECT_CALLS];
	/* A REGISTER of what begins there waits until this is another address (10 s at most). The calls
	 * after it are noted. */
	_Atomic uint64_t hold;
	_Atomic uint32_t held;
	_Atomic uint32_t n_notes;
	struct inject_note notes[INJECT_NOTES];
};
