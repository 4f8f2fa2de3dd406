/*
 * The gate (proto/exchange.h): who may change what. And what is done about a twin that holds it, or
 * a command, for too long: the twin is killed, not the task. Once it is dead nothing can move; what
 * it had moved is read out of the staging window, and the spare takes over.
 */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "pager/snapshot.h"
#include "pager/worker.h"
#include "sys/pagemap.h"
#include "sys/pidfd.h"

#define DEATH_MAX (5000 * MS) /* how long a killed twin may take to end */

static void wake(_Atomic uint32_t *futex)
{
	syscall(SYS_futex, futex, FUTEX_WAKE, 1, NULL, NULL, 0);
}

bool gate_take(struct task *t)
{
	struct exchange *x = t->exchange;
	uint32_t gate = EXCHANGE_GATE_FREE;

	if (!x || !t->evictable)
		return true; /* nobody moves pages */
	if (t->gate_wanted && atomic_load(&x->gate) == EXCHANGE_GATE_DAEMON) {
		t->gate_wanted = false; /* handed over */
		return true;
	}
	for (unsigned i = 0; i < 3; i++) {
		gate = EXCHANGE_GATE_FREE;
		if (atomic_compare_exchange_strong(&x->gate, &gate, EXCHANGE_GATE_DAEMON)) {
			t->gate_wanted = false;
			return true;
		}
		gate = EXCHANGE_GATE_AGENT;
		if (atomic_compare_exchange_strong(&x->gate, &gate,
						   EXCHANGE_GATE_AGENT | EXCHANGE_GATE_WANTED))
			break;
	}
	if (!t->gate_wanted) {
		t->gate_wanted = true;
		t->gate_since = t->worker->now;
	}
	return false;
}

void gate_release(struct task *t, bool changed)
{
	struct exchange *x = t->exchange;

	if (!x || !t->evictable)
		return;
	if (changed)
		atomic_fetch_add(&x->epoch, 1);
	atomic_store(&x->gate, EXCHANGE_GATE_FREE);
	if (t->posted != t->reaped)
		wake(&x->gate);
}

/* ---- a dead twin's estate ---- */

static uint64_t staged_at(const struct task *t, const struct command *c, uint32_t page)
{
	uint64_t window = c->flags & EXCHANGE_EXEC ? t->staging_rwx : t->staging;

	return window + pages_to_bytes(page);
}

/* Whether the page had been moved when the twin died; if so its bytes go to the frame. */
static uint8_t settle_page(struct task *t, const struct command *c, uint32_t i, uint64_t address)
{
	char *frame = t->frame_memory + pages_to_bytes(c->first_frame + i);
	uint64_t staged = staged_at(t, c, i);

	if (pagemap_is(t->pagemap, staged, PAGEMAP_PRESENT) == 1) {
		if (pread(t->mem, frame, PAGE_SIZE, (off_t)staged) != PAGE_SIZE)
			task_broken(t, EIO);
		return EXCHANGE_OUT_UNMARKED;
	}
	if (pagemap_is(t->pagemap, address, PAGEMAP_PRESENT) == 1 && !snapshot_needs(t, address))
		uffd_protect(t->uffd, address, PAGE_SIZE, false);
	return EXCHANGE_STALE;
}

static void settle_command(struct task *t, const struct command *c, struct exchange_command *theirs)
{
	uint32_t state = atomic_load(&theirs->state), i = 0;

	if (state == EXCHANGE_COPIED)
		return;
	for (uint32_t r = 0; r < c->n_runs; r++)
		for (uint32_t k = 0; k < c->runs[r].pages; k++, i++) {
			uint64_t address = c->runs[r].address + pages_to_bytes(k);

			if (state == EXCHANGE_POSTED)
				theirs->result[i] = EXCHANGE_STALE;
			else if (state != EXCHANGE_MOVED)
				theirs->result[i] = settle_page(t, c, i, address);
			else if (theirs->result[i] == EXCHANGE_OUT ||
				 theirs->result[i] == EXCHANGE_OUT_UNMARKED)
				settle_page(t, c, i, address);
		}
	atomic_store(&theirs->state, EXCHANGE_COPIED);
}

static void replace_twin(struct task *t)
{
	struct exchange *x = t->exchange;

	t->twin_killed_at = 0;
	fd_close(&t->agent_pidfd[t->agent]);
	for (uint32_t n = t->reaped; n != t->posted; n++)
		settle_command(t, &t->commands[n % EXCHANGE_COMMANDS],
			       &x->commands[n % EXCHANGE_COMMANDS]);
	atomic_store(&x->taken, t->posted);
	atomic_fetch_add(&x->epoch, 1);
	t->gate_wanted = false;
	if (t->agent == 0 && t->agent_pidfd[1] >= 0) {
		t->agent = 1;
		pager_notify(t, PAGER_NOTICE_AGENT_REPLACED, 0, 0);
	} else {
		t->evictable = false;
		pager_notify(t, PAGER_NOTICE_UNEVICTABLE, 0, ESRCH);
	}
	atomic_store(&x->gate, EXCHANGE_GATE_FREE);
	atomic_store(&x->active, t->agent);
	wake(&x->active);
	worker_queue(t);
}

void gate_watch(struct task *t)
{
	uint64_t limit = t->worker->pager->config.stuck_ms * MS, now = t->worker->now;
	const struct command *oldest = &t->commands[t->reaped % EXCHANGE_COMMANDS];
	bool waits = t->gate_wanted || t->reaped != t->posted;

	if (!t->evictable || t->ended)
		return;
	if ((waits || t->twin_killed_at) && pidfd_ended(t->agent_pidfd[t->agent], 0)) {
		replace_twin(t);
	} else if (t->twin_killed_at) {
		/* It hangs in the kernel with the client's memory: neither can be served. */
		if (now - t->twin_killed_at > DEATH_MAX)
			task_broken(t, ETIMEDOUT);
	} else if ((t->gate_wanted && now - t->gate_since > limit) ||
		   (t->reaped != t->posted && now - oldest->posted_at > 4 * limit)) {
		pidfd_kill(t->agent_pidfd[t->agent], SIGKILL);
		t->twin_killed_at = now;
	}
}
