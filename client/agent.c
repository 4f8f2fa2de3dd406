/*
 * The agent's loop. Libc-free: see agent.h. Read from the end: agent_main, command, evict.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/futex.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include "sys/kernel.h"

#define PAGE  4096ull
#define PIECE 64u /* pages moved in a row, about 20 us, before the daemon is asked whether it waits */

static inline long sys6(long n, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return r;
}
#define SYS(n, a, b, c) sys6(SYS_##n, (long)(a), (long)(b), (long)(c), 0, 0, 0)

static inline void copy_page(void *to, const void *from)
{
	long n = PAGE / 8;

	__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

static void futex_wait(_Atomic uint32_t *word, uint32_t seen, long seconds)
{
	struct timespec ts = {.tv_sec = seconds};

	sys6(SYS_futex, (long)word, FUTEX_WAIT, seen, (long)&ts, 0, 0);
}

static void ring_doorbell(const struct agent *agent)
{
	uint64_t one = 1;

	SYS(write, agent->doorbell, &one, sizeof(one));
}

static void leave(void)
{
	for (;;)
		SYS(exit_group, 0, 0, 0);
}

/* ---- what ends the agent ---- */

static unsigned put(char *to, const char *text)
{
	unsigned n = 0;

	while (text[n]) {
		to[n] = text[n];
		n++;
	}
	return n;
}

static unsigned put_number(char *to, uint32_t number)
{
	char digits[10];
	unsigned n = 0, i = 0;

	do
		digits[n++] = (char)('0' + number % 10);
	while (number /= 10);
	while (n)
		to[i++] = digits[--n];
	return i;
}

/* The daemon is gone and none has come back: its pages are out of reach. The client must not run
 * on over zeros. */
static void give_up(const struct agent *agent)
{
	char text[192];
	unsigned n = put(text, "/proc/");
	long fd;

	if (sys6(SYS_kcmp, agent->client, SYS(getpid, 0, 0, 0), KCMP_VM, 0, 0, 0) > 0)
		leave(); /* it executed another program: this memory is nobody's */
	n += put_number(text + n, (uint32_t)agent->client);
	n += put(text + n, "/fd/2");
	text[n] = 0;
	fd = SYS(open, text, O_WRONLY | O_NOCTTY | O_APPEND | O_NONBLOCK, 0);
	n = put(text, "upager: upagerd is gone and none came back within ");
	n += put_number(text + n, agent->give_up_s);
	n += put(text + n, " s; ending process ");
	n += put_number(text + n, (uint32_t)agent->client);
	n += put(text + n, ", whose evicted memory only it could bring back\n");
	if (fd >= 0)
		SYS(write, fd, text, n);
	SYS(kill, agent->client, SIGKILL, 0);
	leave();
}

static bool daemon_is_gone(const struct agent *agent)
{
	char byte;
	long n = sys6(SYS_recvfrom, agent->socket, (long)&byte, 1, MSG_DONTWAIT | MSG_PEEK, 0, 0);

	return n == 0 || n == -ECONNRESET || n == -ENOTCONN;
}

/* Called about once a second while there is nothing to do. *seconds_alone counts. */
static void look_around(const struct agent *agent, uint32_t *seconds_alone)
{
	if (SYS(getppid, 0, 0, 0) != agent->client)
		leave(); /* the client has ended */
	if (atomic_load(&agent->exchange->goodbye))
		leave();
	if (!daemon_is_gone(agent))
		*seconds_alone = 0;
	else if (++*seconds_alone > agent->give_up_s)
		give_up(agent);
}

/* ---- the gate ---- */

static void gate_lock(const struct agent *agent)
{
	struct exchange *x = agent->exchange;
	uint32_t alone = 0;

	for (unsigned spins = 0;; spins++) {
		uint32_t gate = EXCHANGE_GATE_FREE;

		if (atomic_compare_exchange_strong(&x->gate, &gate, EXCHANGE_GATE_AGENT))
			return;
		if (spins < 100) {
			__builtin_ia32_pause();
			continue;
		}
		/* The daemon reads the uffd: microseconds, unless it died with the gate. */
		futex_wait(&x->gate, gate, 1);
		look_around(agent, &alone);
	}
}

static void gate_unlock(const struct agent *agent)
{
	struct exchange *x = agent->exchange;
	uint32_t gate = EXCHANGE_GATE_AGENT;

	if (atomic_compare_exchange_strong(&x->gate, &gate, EXCHANGE_GATE_FREE))
		return;
	/* The daemon waits: it goes first. */
	atomic_store(&x->gate, EXCHANGE_GATE_DAEMON);
	ring_doorbell(agent);
}

/* ---- ioctls ---- */

static long protect(const struct agent *agent, uint64_t start, uint64_t pages, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = {.start = start, .len = pages * PAGE},
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return SYS(ioctl, agent->uffd, UFFDIO_WRITEPROTECT, &wp);
}

/* Returns bytes moved (a prefix), or -errno if nothing was. */
static long move(const struct agent *agent, uint64_t to, uint64_t from, uint64_t pages)
{
	struct uffdio_move m = {.dst = to, .src = from, .len = pages * PAGE};
	long r = SYS(ioctl, agent->uffd, UFFDIO_MOVE, &m);

	return r == 0 || m.move > 0 ? m.move : r;
}

static void staging_register(const struct agent *agent, uint64_t window)
{
	struct uffdio_register reg = {
		.range = {.start = window, .len = EXCHANGE_BATCH * PAGE},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (window)
		SYS(ioctl, agent->uffd, UFFDIO_REGISTER, &reg);
}

/* Discards what was staged. Registered memory would raise a REMOVE event, and every fill of the
 * daemon would fail until it is read: so the window leaves the uffd meanwhile. */
static void staging_clear(const struct agent *agent, uint64_t window, uint64_t pages)
{
	struct uffdio_range range = {.start = window, .len = EXCHANGE_BATCH * PAGE};

	if (!window)
		return;
	SYS(ioctl, agent->uffd, UFFDIO_UNREGISTER, &range);
	SYS(madvise, window, pages * PAGE, MADV_DONTNEED);
	staging_register(agent, window);
}

/* ---- eviction ---- */

static void results_set(struct agent *agent, uint32_t from, uint64_t n, uint8_t result)
{
	for (uint64_t i = 0; i < n; i++)
		agent->work.result[from + i] = result;
}

/* Sets markers on pages [at, at + n) of a run that have just been moved out. */
static void mark(struct agent *agent, uint64_t address, uint32_t first, uint64_t n)
{
	uint8_t result = EXCHANGE_OUT;

	if (protect(agent, address, n, true) < 0)
		result = EXCHANGE_OUT_UNMARKED;
	results_set(agent, first, n, result);
}

/* => gate held. Returns false when an event is pending: the rest of the command is stale. */
static bool move_run(struct agent *agent, const struct exchange_run *run, uint32_t first,
		     uint64_t window)
{
	uint64_t done = 0;
	long r = protect(agent, run->address, run->pages, true);

	if (r == -EAGAIN)
		return false;
	if (r < 0) {
		results_set(agent, first, run->pages, EXCHANGE_GONE);
		return true;
	}
	while (done < run->pages) {
		uint64_t from = run->address + done * PAGE, refused;
		uint8_t result;

		r = move(agent, window + (first + done) * PAGE, from, run->pages - done);
		if (r == -EINVAL) /* the run has come to span two mappings? */
			r = move(agent, window + (first + done) * PAGE, from, 1);
		if (r > 0) {
			mark(agent, from, (uint32_t)(first + done), (uint64_t)r / PAGE);
			done += (uint64_t)r / PAGE;
			continue;
		}
		if (r == -EAGAIN || r == -ENOMEM || r == 0) {
			protect(agent, from, run->pages - done, false);
			results_set(agent, (uint32_t)(first + done), run->pages - done,
				    EXCHANGE_STALE);
			return r != -EAGAIN;
		}
		result = r == -EBUSY ? EXCHANGE_BUSY : r == -EINVAL ? EXCHANGE_DENIED : EXCHANGE_GONE;
		/* A huge page that is pinned is so in every part: asking each would cost a try to split. */
		refused = r == -EBUSY && agent->work.flags & EXCHANGE_HUGE ? run->pages - done : 1;
		/* A bit or marker left behind would be a lie. */
		protect(agent, from, refused, false);
		results_set(agent, (uint32_t)(first + done), refused, result);
		done += refused;
	}
	return true;
}

/* Tells the results of the first n pages. */
static void publish(const struct agent *agent, struct exchange_command *command, uint32_t n)
{
	for (uint32_t i = atomic_load(&command->settled); i < n; i++)
		command->result[i] = agent->work.result[i];
	atomic_store(&command->settled, n);
}

/* A fault must not wait until all of a command is moved: if the daemon wants the gate, it goes first.
 * Returns false if the rest of the command is stale then. */
static bool give_way(struct agent *agent, struct exchange_command *command, uint32_t settled)
{
	struct exchange *x = agent->exchange;

	if (!(atomic_load(&x->gate) & EXCHANGE_GATE_WANTED))
		return true;
	publish(agent, command, settled);
	gate_unlock(agent);
	gate_lock(agent);
	return atomic_load(&x->epoch) == command->epoch;
}

/* *first: of its pages in the command; moves on. */
static bool move_in_pieces(struct agent *agent, struct exchange_command *command,
			   const struct exchange_run *run, uint32_t *first, uint64_t window)
{
	uint64_t most = agent->work.flags & EXCHANGE_HUGE ? run->pages : PIECE;
	bool fresh = true;

	for (uint64_t done = 0; done < run->pages && fresh; done += most) {
		struct exchange_run piece = {
			.address = run->address + done * PAGE,
			.pages = run->pages - done < most ? run->pages - done : most,
		};

		fresh = move_run(agent, &piece, *first, window);
		*first += (uint32_t)piece.pages;
		fresh = fresh && give_way(agent, command, *first);
	}
	return fresh;
}

static void evict(struct agent *agent, struct exchange_command *command)
{
	struct exchange *x = agent->exchange;
	uint64_t window = agent->work.flags & EXCHANGE_EXEC ? agent->staging_rwx : agent->staging;
	char *frames = (char *)x + exchange_frame_offset(agent->work.first_frame);
	uint32_t first = 0;
	bool fresh;

	if (agent->work.flags & EXCHANGE_POPULATE)
		for (uint32_t i = 0; i < agent->work.n_runs; i++)
			SYS(madvise, agent->work.runs[i].address, agent->work.runs[i].pages * PAGE,
			    MADV_POPULATE_WRITE);

	gate_lock(agent);
	atomic_store(&command->state, EXCHANGE_TAKEN);
	fresh = atomic_load(&x->epoch) == command->epoch && window;
	results_set(agent, 0, agent->work.n_pages, EXCHANGE_STALE);
	for (uint32_t i = 0; i < agent->work.n_runs && fresh; i++)
		fresh = move_in_pieces(agent, command, &agent->work.runs[i], &first, window);
	publish(agent, command, agent->work.n_pages);
	atomic_store(&command->state, EXCHANGE_MOVED);
	gate_unlock(agent);

	for (uint32_t i = 0; i < agent->work.n_pages; i++)
		if (agent->work.result[i] == EXCHANGE_OUT ||
		    agent->work.result[i] == EXCHANGE_OUT_UNMARKED)
			copy_page(frames + i * PAGE, (void *)(window + i * PAGE));
	atomic_store(&command->state, EXCHANGE_COPIED);
	atomic_fetch_add(&x->taken, 1);
	ring_doorbell(agent);
	staging_clear(agent, window, agent->work.n_pages);
}

/* Takes a command out of the ring, reading each value once. A wild one is dropped. */
static bool take(struct agent *agent, const struct exchange_command *command)
{
	uint64_t pages = 0;

	agent->work.n_runs = command->n_runs;
	agent->work.n_pages = command->n_pages;
	agent->work.first_frame = command->first_frame;
	agent->work.flags = command->flags;
	if (agent->work.n_runs > EXCHANGE_RUNS || agent->work.n_pages > EXCHANGE_BATCH ||
	    exchange_frame_offset(agent->work.first_frame + agent->work.n_pages) >
		    agent->exchange_size)
		return false;
	for (uint32_t i = 0; i < agent->work.n_runs; i++) {
		agent->work.runs[i] = command->runs[i];
		if (agent->work.runs[i].pages > EXCHANGE_BATCH)
			return false;
		pages += agent->work.runs[i].pages;
	}
	return pages == agent->work.n_pages;
}

static void command_loop(struct agent *agent)
{
	struct exchange *x = agent->exchange;
	uint32_t alone = 0;

	for (;;) {
		uint32_t posted = atomic_load(&x->posted), taken = atomic_load(&x->taken);

		if (posted == taken) {
			atomic_store(&x->sleeping, 1);
			if (atomic_load(&x->posted) == posted)
				futex_wait(&x->posted, posted, 1);
			atomic_store(&x->sleeping, 0);
			if (atomic_load(&x->posted) == posted)
				look_around(agent, &alone);
			continue;
		}
		if (!take(agent, &x->commands[taken % EXCHANGE_COMMANDS]))
			leave();
		evict(agent, &x->commands[taken % EXCHANGE_COMMANDS]);
	}
}

/* ---- life ---- */

/* Keeps what the agent needs at the lowest numbers and closes everything else that the client had
 * open: a pipe or a terminal must not stay open because of us. */
static void keep_descriptors(struct agent *agent)
{
	int *const kept[] = {&agent->uffd, &agent->socket, &agent->doorbell};
	enum { N = sizeof(kept) / sizeof(*kept) };

	for (unsigned i = 0; i < N; i++)
		*kept[i] = (int)SYS(fcntl, *kept[i], F_DUPFD_CLOEXEC, 64);
	SYS(close_range, 0, 63, 0);
	for (unsigned i = 0; i < N; i++) {
		SYS(dup3, *kept[i], i, O_CLOEXEC);
		*kept[i] = (int)i;
	}
	SYS(close_range, N, ~0u, 0);
}

int agent_main(void *argument)
{
	struct agent *agent = argument;
	struct exchange *x = agent->exchange;
	uint32_t alone = 0;

	keep_descriptors(agent);
	SYS(setsid, 0, 0, 0);
	SYS(prctl, PR_SET_NAME, AGENT_NAME, 0);
	agent->ready.ns_pid = (int32_t)SYS(getpid, 0, 0, 0);
	if (sys6(SYS_sendto, agent->socket, (long)&agent->ready, sizeof(agent->ready), MSG_NOSIGNAL,
		 0, 0) < 0)
		leave();
	while (atomic_load(&x->active) != agent->index) {
		futex_wait(&x->active, atomic_load(&x->active), 1);
		look_around(agent, &alone);
	}
	/* A spare finds the windows as its predecessor left them. */
	staging_clear(agent, agent->staging, EXCHANGE_BATCH);
	staging_clear(agent, agent->staging_rwx, EXCHANGE_BATCH);
	command_loop(agent);
	return 0;
}
