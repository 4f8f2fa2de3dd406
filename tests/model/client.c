/*
 * The client of the model test: does one operation after the other, as it is told, in an arena at a
 * fixed address. Started with the shim preloaded, by model itself.
 *
 * Its own memory is locked, so that every page that comes and goes is one of the arena's. It
 * answers through shared memory, and waits for the next operation touching only its stack.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ops.h"
#include "proto/exchange.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif

#define BALLAST	      160u /* pages, locked: what the limit cannot take away */

static struct board *boards;
static sigjmp_buf escape;
static volatile sig_atomic_t caught;
static pid_t child;

static void fail(const char *what)
{
	perror(what);
	_exit(3);
}

static char *at(uint32_t page)
{
	return (char *)ARENA + (size_t)page * PAGE;
}

static void on_signal(int number)
{
	caught = number;
	siglongjmp(escape, 1);
}

/* Locks what is writable and private: data, heap, thread storage. */
static void lock_own(void)
{
	char text[16384];
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	size_t got = 0;
	ssize_t n;

	while ((n = read(fd, text + got, sizeof(text) - 1 - got)) > 0)
		got += (size_t)n;
	close(fd);
	text[got] = 0;
	for (char *line = text; line && *line;
	     line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		unsigned long start, end;
		char flags[5];

		if (sscanf(line, "%lx-%lx %4s", &start, &end, flags) != 3 || flags[1] != 'w' ||
		    flags[3] != 'p' || end - start == EXCHANGE_BATCH * PAGE /* a staging window */ ||
		    (start >= ARENA && start < ARENA + ARENA_PAGES * PAGE))
			continue;
		if (mlock((void *)start, end - start))
			fail("mlock");
	}
}

/* ---- touches: how many pages were done before a signal ---- */

static void touch(const struct op *op, uint32_t i, uint64_t *sum)
{
	char *page = at(op->page + i);

	switch (op->kind) {
	case OP_READ:
		*sum = content_sum(*sum, page);
		break;
	case OP_WRITE:
		content_fill(page, op->seed + i);
		break;
	case OP_POKE:
		content_poke(page, op->seed);
		break;
	default:
		content_same(page, op->arg);
		break;
	}
}

static void touch_all(const struct op *op, struct outcome *o)
{
	volatile uint32_t done = 0;

	caught = 0;
	if (!sigsetjmp(escape, 1)) {
		for (; done < op->n; done++) {
			uint64_t sum = o->sum;

			touch(op, done, &sum);
			o->sum = sum;
		}
	}
	o->signal = caught;
	o->result = done;
}

static int64_t copy_out(const struct op *op, struct outcome *o)
{
	_Alignas(8) char page[PAGE];
	struct iovec to = {page, PAGE}, from = {at(op->page), PAGE};
	ssize_t n = process_vm_readv(getpid(), &to, 1, &from, 1, 0);

	if (n < 0)
		return -errno;
	if (n == PAGE)
		o->sum = content_sum(0, page);
	return n / PAGE;
}

static int64_t direct(const struct op *op)
{
	ssize_t n = pread(FD_FILE, at(op->page), PAGE, (off_t)op->arg * PAGE);

	return n < 0 ? -errno : n / PAGE;
}

/* ---- mappings ---- */

static int64_t map(const struct op *op, int flags)
{
	void *got = mmap(at(op->page), (size_t)op->n * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	return got == MAP_FAILED ? -errno : 0;
}

static int64_t move(const struct op *op, int flags)
{
	void *got = mremap(at(op->page), (size_t)op->n * PAGE, (size_t)op->n * PAGE,
			   MREMAP_MAYMOVE | MREMAP_FIXED | flags, at(op->to));

	return got == MAP_FAILED ? -errno : 0;
}

static int64_t resize(const struct op *op)
{
	void *got = mremap(at(op->page), (size_t)op->n * PAGE, (size_t)op->to * PAGE, 0);

	return got == MAP_FAILED ? -errno : 0;
}

static int64_t answer(int result)
{
	return result < 0 ? -errno : result;
}

static int64_t advise(const struct op *op, int advice)
{
	return answer(madvise(at(op->page), (size_t)op->n * PAGE, advice));
}

/* ---- processes ---- */

static void serve(uint32_t me);

static int64_t start_child(void)
{
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid) {
		child = pid;
		return pid;
	}
	lock_own();
	serve(1);
	_exit(0);
}

static int64_t end_child(void)
{
	int status = 0;

	if (waitpid(child, &status, 0) != child)
		return -errno;
	return status;
}

/* ---- the loop ---- */

static int64_t change(const struct op *op)
{
	size_t length = (size_t)op->n * PAGE;

	switch (op->kind) {
	case OP_POPULATE_READ:
		return advise(op, MADV_POPULATE_READ);
	case OP_POPULATE_WRITE:
		return advise(op, MADV_POPULATE_WRITE);
	case OP_DISCARD:
		return advise(op, MADV_DONTNEED);
	case OP_FREE:
		return advise(op, MADV_FREE);
	case OP_PAGEOUT:
		return advise(op, MADV_PAGEOUT);
	case OP_GUARD:
		return advise(op, MADV_GUARD_INSTALL);
	case OP_UNGUARD:
		return advise(op, MADV_GUARD_REMOVE);
	case OP_UNMAP:
		return answer(munmap(at(op->page), length));
	case OP_MAP:
		return map(op, MAP_FIXED_NOREPLACE);
	case OP_MAP_OVER:
		return map(op, MAP_FIXED);
	case OP_MOVE:
	case OP_MOVE_OVER:
		return move(op, 0);
	case OP_LEAVE:
		return move(op, MREMAP_DONTUNMAP);
	case OP_SHRINK:
	case OP_GROW:
		return resize(op);
	case OP_PROTECT:
		return answer(mprotect(at(op->page), length, (int)op->arg));
	case OP_LOCK:
		return answer(mlock(at(op->page), length));
	case OP_UNLOCK:
		return answer(munlock(at(op->page), length));
	case OP_FORK:
		return start_child();
	case OP_EXIT:
		return end_child();
	default:
		return -ENOSYS;
	}
}

static void perform(const struct op *op, struct outcome *o)
{
	switch (op->kind) {
	case OP_READ:
	case OP_WRITE:
	case OP_POKE:
	case OP_SAME:
		touch_all(op, o);
		break;
	case OP_COPY_OUT:
		o->result = copy_out(op, o);
		break;
	case OP_DIRECT:
		o->result = direct(op);
		break;
	default:
		o->result = change(op);
		break;
	}
}

static void serve(uint32_t me)
{
	uint64_t one = 1, n;

	for (;;) {
		if (write(FD_DONE + (int)me, &one, sizeof(one)) < 0 ||
		    read(FD_GO + (int)me, &n, sizeof(n)) < 0)
			_exit(4);
		boards[me].outcome = (struct outcome){0};
		if (boards[me].op.kind == OP_KINDS)
			_exit(0);
		perform(&boards[me].op, &boards[me].outcome);
	}
}

int main(void)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_NODEFER};
	void *ballast =
	    mmap(NULL, BALLAST * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	boards = mmap(NULL, PROCESSES * sizeof(*boards), PROT_READ | PROT_WRITE, MAP_SHARED,
		      FD_BOARDS, 0);
	if (boards == MAP_FAILED || ballast == MAP_FAILED)
		fail("mmap");
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	lock_own();
	serve(0);
	return 0;
}
