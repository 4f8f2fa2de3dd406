/* Failure reports, the watchdog and signals. Nothing here relies on memory that can be paged. */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct text {
	size_t n;
	char data[16384];
};

static __attribute__((format(printf, 2, 3))) void add(struct text *t, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(t->data + t->n, sizeof t->data - t->n, format, args);
	va_end(args);
	if (n > 0)
		t->n += (size_t)n;
	if (t->n >= sizeof t->data)
		t->n = sizeof t->data - 1;
}

static void text_write(const struct text *t)
{
	size_t done = 0;

	while (done < t->n) {
		ssize_t n = write(2, t->data + done, t->n - done);

		if (n <= 0)
			break;
		done += (size_t)n;
	}
}

void log_range(struct actor *a, uint64_t addr, uint64_t bytes)
{
	struct log_entry *e = &a->log[a->ops % LOG];

	e->addr = addr;
	e->bytes = bytes;
}

void log_target(struct actor *a, uint64_t addr)
{
	a->log[a->ops % LOG].addr2 = addr;
}

void beat(struct actor *a)
{
	__atomic_add_fetch(&root->beats[a->index].count, 1, __ATOMIC_RELAXED);
}

static void add_log(struct text *t, const struct actor *a)
{
	add(t, "  last operations of actor %u:\n", a->index);
	for (uint64_t n = a->ops > 40 ? a->ops - 40 : 1; n <= a->ops; n++) {
		const struct log_entry *e = &a->log[n % LOG];

		if (e->number != n)
			continue;
		add(t, "    %8lu %-14s", e->number, op_name(e->op));
		if (e->addr)
			add(t, " %#lx+%#lx", e->addr, e->bytes);
		if (e->addr2)
			add(t, " -> %#lx", e->addr2);
		add(t, "%s\n", e->result ? " (nothing to do)" : "");
	}
}

static void add_who(struct text *t, const struct actor *a)
{
	add(t, "  seed %lu, actor %u of %u, operation %lu (%s), pid %d, depth %u%s\n", root->seed,
	    a->index, W->actors, a->ops, op_name(a->log[a->ops % LOG].op), (int)getpid(), depth,
	    root->single ? ", --single" : "");
}

static void add_pagemap(struct text *t, uint64_t addr)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && pread(fd, &entry, 8, (off_t)(addr / PAGE * 8)) == 8)
		add(t, "  pagemap %#018lx:%s%s%s%s%s\n", entry, entry >> 63 & 1 ? " present" : "",
		    entry >> 62 & 1 ? " swap" : "", entry >> 58 & 1 ? " guard" : "",
		    entry >> 57 & 1 ? " uffd-wp" : "", entry >> 56 & 1 ? " exclusive" : "");
	if (fd >= 0)
		close(fd);
}

/* The kernel's VMAs of a range and its neighbours, with the flags that matter: "um" and "uw" say
 * that a userfaultfd watches it. */
static void add_vmas(struct text *t, uint64_t start, uint64_t bytes)
{
	char data[8192], *line = data;
	size_t n = 0;
	bool inside = false;
	int fd = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
	ssize_t got = 1;

	while (fd >= 0 && got > 0 && t->n < sizeof t->data - 2048) {
		char *end;

		got = read(fd, data + n, sizeof data - 1 - n);
		n += got > 0 ? (size_t)got : 0;
		data[n] = 0;
		for (line = data; (end = strchr(line, '\n')); line = end + 1) {
			unsigned long from, to;

			*end = 0;
			if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
				inside = from <= start + bytes && to >= start;
				if (inside)
					add(t, "    %.60s", line);
			} else if (inside && strncmp(line, "VmFlags:", 8) == 0) {
				add(t, " %s\n", line + 8);
			}
		}
		n = strlen(line);
		memmove(data, line, n + 1);
	}
	if (fd >= 0)
		close(fd);
}

static void add_region(struct text *t, const struct actor *a, uint64_t addr)
{
	static const char *const kinds[] = {"free", "normal", "whole", "huge",
					    "sparse", "growsdown", "brk", "pinned"};

	for (unsigned i = 0; i < REGIONS; i++) {
		const struct region *r = &a->regions[i];

		if (r->kind == R_FREE || addr < r->addr || addr >= r->addr + r->pages * r->stride)
			continue;
		add(t, "  region %u of actor %u: %s, %#lx, %u pages, stride %#lx; page %lu of it\n",
		    i, a->index, kinds[r->kind], r->addr, r->pages, r->stride, (addr - r->addr) / r->stride);
	}
}

static _Noreturn void end(int status)
{
	if (root->hold) {
		dprintf(2, "torture: held: pid %d\n", (int)getpid());
		for (;;)
			pause();
	}
	_exit(status);
}

/* One report of all processes and threads; the others wait for the end. */
static void first_or_wait(void)
{
	if (__atomic_exchange_n(&root->failed, 1, __ATOMIC_SEQ_CST)) {
		if (depth > 0)
			_exit(1);
		sleep(2);
		end(1);
	}
}

static bool looks_like(uint64_t content, const uint64_t *found)
{
	uint64_t words[WORDS];

	content_make(content, words);
	return memcmp(words, found, PAGE) == 0;
}

_Noreturn void fail_page(struct actor *a, const struct page *p, const uint64_t *at)
{
	struct text t = {0};
	uint64_t found[WORDS];
	unsigned first = WORDS, different = 0, zero = 0;

	memcpy(found, at, PAGE);
	first_or_wait();
	content_make(p->content, a->expect);
	for (unsigned i = 0; i < WORDS; i++) {
		if (found[i] != a->expect[i]) {
			different++;
			if (first == WORDS)
				first = i;
		}
		zero += found[i] == 0;
	}
	add(&t, "torture: WRONG BYTES at %p\n", (const void *)at);
	add_who(&t, a);
	if (first < WORDS)
		add(&t, "  word %u: expected %#018lx, found %#018lx; %u of 512 words differ\n",
		    first, a->expect[first], found[first], different);
	else
		add(&t, "  the page read right when it was looked at again\n");
	add(&t, "  content %#lx, before that %#lx, flags %#x, page %u of the files; found: %s\n",
	    p->content, p->before, p->flags, p->file,
	    zero == WORDS                  ? "all zeros"
	    : looks_like(p->before, found) ? "the content before"
					   : "neither zeros nor the content before");
	if (zero != WORDS) { /* whose is it? */
		for (uint64_t i = 0; i < (W->size - W->pages_at) / sizeof *p; i++) {
			const struct page *q = world_pages(W) + i;

			if (q != p && q->content && looks_like(q->content, found))
				add(&t, "  it is what shadow page %lu holds (of actor %lu)\n", i,
				    i / (REGIONS * (uint64_t)W->capacity));
		}
	}
	for (unsigned i = 0; i < W->actors; i++)
		if (i == a->index || complete)
			add_region(&t, &W->actor[i], (uint64_t)at);
	add_pagemap(&t, (uint64_t)at);
	usleep(20000);
	add(&t, "  20 ms later: %s\n", memcmp(found, at, PAGE) == 0 ? "the same" : "changed");
	add_log(&t, a);
	text_write(&t);
	end(1);
}

_Noreturn void fail(struct actor *a, const char *format, ...)
{
	struct text t = {0};
	char line[512];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	first_or_wait();
	add(&t, "torture: FAILED: %s\n", line);
	add_who(&t, a);
	if (a->log[a->ops % LOG].addr) {
		const struct log_entry *e = &a->log[a->ops % LOG];

		add(&t, "  VMAs of %#lx+%#lx and beside it:\n", e->addr, e->bytes);
		add_vmas(&t, e->addr, e->bytes);
		if (e->addr2) {
			add(&t, "  and of %#lx:\n", e->addr2);
			add_vmas(&t, e->addr2, e->bytes);
		}
	}
	add_log(&t, a);
	text_write(&t);
	end(1);
}

static void add_beats(struct text *t)
{
	for (unsigned i = 0; i < root->actors; i++) {
		const struct beat *b = &root->beats[i];

		add(t, "  actor %u: operation %lu (%s), pid %d, %lu steps\n", i, b->number,
		    op_name(b->op), (int)b->pid, b->count);
	}
}

static _Noreturn void stalled(void)
{
	struct text t = {0};

	add(&t, "torture: STALLED: no step in %u s, seed %lu, pid %d\n", root->stall_s, root->seed,
	    (int)getpid());
	add_beats(&t);
	text_write(&t);
	end(2);
}

static __thread sigjmp_buf bus_back;
static __thread volatile bool bus_expected;

bool touch_fails(volatile uint64_t *at)
{
	bool fails = sigsetjmp(bus_back, 1);

	bus_expected = !fails;
	if (!fails)
		*at;
	bus_expected = false;
	return fails;
}

static void on_crash(int signal, siginfo_t *info, void *context)
{
	struct text t = {0};

	(void)context;
	if (signal == SIGBUS && bus_expected)
		siglongjmp(bus_back, 1);
	first_or_wait();
	add(&t, "torture: %s at %p (code %d), seed %lu, pid %d, depth %u\n",
	    signal == SIGBUS ? "SIGBUS" : "SIGSEGV", info->si_addr, info->si_code, root->seed,
	    (int)getpid(), depth);
	add_pagemap(&t, (uint64_t)info->si_addr);
	add_beats(&t);
	for (unsigned i = 0; i < W->actors && depth == 0; i++)
		add_region(&t, &W->actor[i], (uint64_t)info->si_addr);
	text_write(&t);
	if (signal == SIGBUS && root->sigbus_ok) {
		root->failed = 3;
		end(3);
	}
	end(1);
}

/* SIGALRM: checks and changes pages of its own, wherever the thread was; in --single it is the
 * watchdog, too. */
static void on_alarm(int signal)
{
	static uint64_t last_count;
	static time_t last_time;
	int saved = errno;

	(void)signal;
	if (depth == 0 && !__atomic_exchange_n(&W->signal_busy, 1, __ATOMIC_ACQUIRE)) {
		unsigned i;
		uint64_t *at, content;
		struct page *p;

		W->signal_rng = mix64(W->signal_rng + 0x9e3779b97f4a7c15ull);
		i = (unsigned)(W->signal_rng % SIGNAL_PAGES);
		at = (uint64_t *)(W->signal_pages + i * PAGE);
		p = &W->signal_shadow[i];
		content_make(p->content, W->signal_expect);
		if (memcmp(at, W->signal_expect, PAGE) != 0)
			fail_page(&W->actor[0], p, at);
		if (W->signal_rng >> 40 & 1) {
			content = W->signal_rng << 12 | CONTENT_RANDOM;
			content_make(content, W->signal_expect);
			memcpy(at, W->signal_expect, PAGE);
			page_set(p, content);
		}
		root->totals[0].signals++;
		__atomic_store_n(&W->signal_busy, 0, __ATOMIC_RELEASE);
	}
	if (root->single && depth == 0) {
		struct timespec now;

		clock_gettime(CLOCK_MONOTONIC, &now);
		if (root->beats[0].count != last_count || !last_time) {
			last_count = root->beats[0].count;
			last_time = now.tv_sec;
		} else if (now.tv_sec - last_time > (time_t)root->stall_s) {
			stalled();
		}
	}
	alarm_arm();
	errno = saved;
}

void alarm_arm(void)
{
	struct itimerval timer = {.it_value = {.tv_usec = 1000}};

	timer.it_value.tv_usec += (long)(W->signal_rng >> 20) % 30000;
	setitimer(ITIMER_REAL, &timer, NULL);
}

void signals_thread(struct actor *a)
{
	stack_t stack = {.ss_size = 65536};

	stack.ss_sp = mmap(NULL, stack.ss_size, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(a, stack.ss_sp != MAP_FAILED);
	check(a, sigaltstack(&stack, NULL) == 0);
}

void signals_init(void)
{
	struct sigaction crash = {.sa_sigaction = on_crash,
				  .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	/* Not on the alternate stack: pages of ordinary stacks are touched by handlers, too. */
	struct sigaction alrm = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};

	sigaction(SIGSEGV, &crash, NULL);
	sigaction(SIGBUS, &crash, NULL);
	if (root->single)
		alrm.sa_flags |= SA_ONSTACK; /* the watchdog must run when the stack is stuck */
	sigaction(SIGALRM, &alrm, NULL);
}

static void *watchdog(void *unused)
{
	uint64_t last[ACTORS] = {0};
	unsigned idle[ACTORS] = {0};
	unsigned seconds = 0;

	(void)unused;
	prctl(PR_SET_NAME, "watchdog");
	for (;;) {
		struct timespec second = {.tv_sec = 1};

		nanosleep(&second, NULL);
		for (unsigned i = 0; i < root->actors; i++) {
			uint64_t count = __atomic_load_n(&root->beats[i].count, __ATOMIC_RELAXED);

			idle[i] = count == last[i] ? idle[i] + 1 : 0;
			last[i] = count;
			if (idle[i] > root->stall_s && root->beats[i].op != -1)
				stalled();
		}
		if (root->verbose && ++seconds % 5 == 0) {
			struct text t = {0};

			add(&t, "torture: %u s\n", seconds);
			add_beats(&t);
			text_write(&t);
		}
	}
	return NULL;
}

void watchdog_start(void)
{
	size_t size = 262144;
	void *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all, old;

	check(&W->actor[0], stack != MAP_FAILED);
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setstack(&attr, stack, size);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	check(&W->actor[0], pthread_create(&thread, &attr, watchdog, NULL) == 0);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}
