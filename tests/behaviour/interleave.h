/*
 * Interleavings that the pager must survive, each provoked instead of waited for: an agent or the
 * daemon is stopped at the right moment, several threads change the address space meanwhile, and
 * what every page must then hold is checked.
 *
 * `interleave NAME` runs under `upager run --memory 16M`, where it finds its agents and the daemon
 * by itself; without upager it is an ordinary program that stops nobody. It prints "ok NAME" and
 * lines of what it met; wrong bytes end it with status 1, 77 = cannot be tried here.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define PAGE  4096ul
#define WORDS (PAGE / 8)
#define MIB   (1ul << 20)

_Noreturn void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void skip(const char *reason);
#define must(condition)                                                                            \
	do {                                                                                       \
		if (!(condition))                                                                  \
			wrong("%s:%d: %s: %m", __FILE__, __LINE__, #condition);                    \
	} while (0)

/* ---- memory: page i of a range holds what follows from salt + i; salt 0 = zeros ---- */

char *map(size_t pages);
char *map_at(char *at, size_t pages); /* where nothing is mapped */
void fill(char *at, size_t pages, uint64_t salt);
void check(const char *at, size_t pages, uint64_t salt);
/* Each page is either as filled with salt, or zeros. */
void check_either(const char *at, size_t pages, uint64_t salt);
bool is_mapped(char *at);

/* ---- eviction ---- */

extern bool native;				/* no upager: nothing leaves, nobody is stopped */
size_t pages_out(const char *at, size_t pages); /* how many rest with the daemon */
/* Touches other memory until at least three quarters of the range are out. */
void push_out(const char *at, size_t pages);
void ballast_check(void);

/* ---- stopping ---- */

pid_t agent(unsigned index); /* 0 works, 1 is the spare; 0 = there is none */
void stop(pid_t pid);
void stop_idle(pid_t pid); /* an agent, where it does not hold the gate */
void cont(pid_t pid);
void agent_flicker(unsigned times); /* stopped for moments, wherever it stands; returns at once */
/* Stops the daemon for so many milliseconds, by a helper that needs none of our memory. */
void daemon_hold(unsigned ms);
void daemon_wait(void); /* until it runs again */
pid_t daemon_pid(void);
void sleep_ms(unsigned ms);
uint64_t clock_ms(void);

/* ---- threads that change memory one after the other: each when those with smaller delays are
 * done, or wait for the daemon to read their event ---- */

struct op {
	void (*run)(struct op *op);
	char *a, *b;
	size_t pages;
	uint64_t salt;
	unsigned delay;	  /* ms after ops_go() */
	uint64_t took;	  /* ms */
	uint64_t word;	  /* what op_touch() read */
	bool forks;	  /* it will fork */
	struct op *first; /* of its list */
	pid_t tid;
	_Atomic bool done;
	pthread_t thread;
};

void ops_prepare(struct op *ops, unsigned n);
void ops_go(void);
void ops_join(struct op *ops, unsigned n);
/* How many of them took at least so long: they were under way while the daemon was held. */
unsigned ops_waited(const struct op *ops, unsigned n, unsigned ms);

void op_unmap(struct op *op);	 /* a */
void op_remap(struct op *op);	 /* a → b, which may be mapped */
void op_discard(struct op *op);	 /* a: MADV_DONTNEED */
void op_map_fill(struct op *op); /* maps a anew and fills it */
void op_fill(struct op *op);	 /* a */
void op_touch(struct op *op);	 /* reads the first word of a */

/* A child checks the range, if it has it, and ends. */
pid_t fork_check(char *at, size_t pages, uint64_t salt, bool either);
void await(pid_t pid);

struct interleaving {
	const char *name;
	void (*run)(void);
};
extern const struct interleaving agent_interleavings[], event_interleavings[], fill_interleavings[],
	space_interleavings[];

/* The whole of main(): runs the one that is named, or lists them. begin (may be NULL) is called
 * before it. */
int interleave_main(int argc, char **argv, const struct interleaving *const *lists, size_t n,
		    void (*begin)(void));
