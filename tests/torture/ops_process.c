/* fork, vfork, posix_spawn, exec, threads. */
#include "torture.h"

#include <alloca.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

/* The living children of this thread in this process. */
struct child {
	pid_t pid;
	bool to_kill;
};
static __thread struct child children[CHILDREN];
static __thread pid_t children_of;

static void child_ended(struct actor *a, struct child *c, int status)
{
	__atomic_sub_fetch(&root->alive, 1, __ATOMIC_RELAXED);
	file_forsaken(c->pid);
	if (c->to_kill && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		status = 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) != 0 && root->failed)
		_exit(root->failed == 3 ? 3 : WEXITSTATUS(status)); /* it has reported itself */
	if (status != 0)
		fail(a, "child %d ended with %s %d", (int)c->pid,
		     WIFSIGNALED(status) ? "signal" : "status",
		     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	c->pid = 0;
}

void children_reap(struct actor *a, bool wait)
{
	if (children_of != getpid())
		return;
	for (unsigned i = 0; i < CHILDREN; i++) {
		struct child *c = &children[i];
		int status;

		if (c->pid == 0)
			continue;
		if (c->to_kill && (wait || chance(a, 40)))
			kill(c->pid, SIGKILL);
		for (;;) {
			pid_t pid = waitpid(c->pid, &status, wait ? 0 : WNOHANG);

			if (pid == c->pid)
				child_ended(a, c, status);
			else if (pid < 0 && errno == EINTR)
				continue;
			else if (pid < 0)
				fail(a, "waitpid %d: %m", (int)c->pid);
			break;
		}
	}
}

/* What fork does to a page, told to the child's shadow. */
static void shadow_after_fork(struct actor *a)
{
	for (unsigned k = 0; k < REGIONS; k++) {
		struct region *r = &a->regions[k];

		for (unsigned i = 0; r->kind != R_FREE && i < r->pages; i++) {
			struct page *p = page_of(r, i);

			if (p->flags & P_ABSENT)
				continue;
			p->flags &= ~(unsigned)P_LOCKED; /* locks are not inherited */
			if (p->flags & P_DONTFORK) {
				page_anew(p, P_ABSENT);
			} else if (p->flags & P_WIPE) {
				page_set(p, 0);
				p->flags &= ~(unsigned)P_GUARD;
			}
		}
	}
	views_after_fork(a);
}

static uint64_t milliseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* All, or now and then only a part, so that short-lived children are seen, too. */
static void child_verify(struct actor *a, bool all)
{
	verify_one_in = chance(a, 3) ? 1 : 16;
	if (all)
		world_verify(a);
	else
		actor_verify(a);
	verify_one_in = 1;
}

static _Noreturn void child_main(struct actor *a, struct world *copy, uint64_t serial, bool all,
				 pid_t parent)
{
	uint64_t end = milliseconds() + 200 + pick(a, 1500);
	unsigned ops;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
	depth++;
	W = copy;
	complete = all;
	a = &W->actor[a->index];
	a->rng ^= mix64(serial + 1);
	a->number = (serial & 0xffff) << 36 | (uint64_t)(a->index + 1) << 30;
	memset(children, 0, sizeof children);
	children_of = getpid();
	root->beats[a->index].pid = getpid();
	for (unsigned i = 0; i < W->actors; i++)
		if (all || i == a->index)
			shadow_after_fork(&W->actor[i]);
	child_verify(a, all);
	ops = 10 + pick(a, chance(a, 4) ? 2000 : 200);
	while (ops-- > 0 && milliseconds() < end &&
	       !__atomic_load_n(&root->stop, __ATOMIC_RELAXED))
		act(a);
	children_reap(a, true);
	child_verify(a, all);
	_exit(0);
}

/* While a child lives, what it shares cannot be evicted: most of the time there are none. */
static bool time_to_fork(void)
{
	return milliseconds() % 5000 < 1500;
}

static int fork_with(struct actor *a, bool all)
{
	struct child *c = NULL;
	struct world *copy;
	sigset_t alarm_set, old;
	uint64_t serial;
	pid_t pid, self = getpid();

	if (children_of != self) {
		memset(children, 0, sizeof children);
		children_of = self;
	}
	for (unsigned i = 0; i < CHILDREN; i++)
		if (children[i].pid == 0)
			c = &children[i];
	if (!c || depth >= MAX_DEPTH || !time_to_fork())
		return -1;
	if (__atomic_add_fetch(&root->alive, 1, __ATOMIC_RELAXED) > root->actors + CHILDREN) {
		__atomic_sub_fetch(&root->alive, 1, __ATOMIC_RELAXED);
		return -1;
	}
	serial = __atomic_add_fetch(&root->fork_serial, 1, __ATOMIC_RELAXED);
	c->to_kill = chance(a, 8);
	copy = mmap(NULL, W->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(a, copy != MAP_FAILED);
	memcpy(copy, W, W->size);
	/* A fork is restarted at each signal: a short timer could keep it from ever ending. */
	sigemptyset(&alarm_set);
	sigaddset(&alarm_set, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &alarm_set, &old);
	pid = fork();
	check(a, pid >= 0);
	if (pid == 0) {
		pthread_sigmask(SIG_SETMASK, &old, NULL);
		if (c->to_kill)
			depth = MAX_DEPTH; /* no grandchildren that nobody would count */
		child_main(a, copy, serial, all, self);
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	check(a, munmap(copy, W->size) == 0);
	c->pid = pid;
	root->totals[a->index].forks++;
	return 0;
}

static int op_fork(struct actor *a)
{
	return fork_with(a, W->actors == 1 && complete);
}

/* All threads stand still, so that the child knows what all memory must hold. */
static int op_fork_all(struct actor *a)
{
	return fork_with(a, complete);
}

static void wait_true(struct actor *a, pid_t pid)
{
	int status;

	check(a, pid > 0);
	while (waitpid(pid, &status, 0) < 0)
		check(a, errno == EINTR);
	if (status != 0)
		fail(a, "/bin/true ended with status %#x", status);
	root->totals[a->index].spawns++;
}

static __attribute__((noinline)) pid_t vfork_true(void)
{
	static char *argv[] = {"true", NULL};
	pid_t pid = vfork();

	if (pid == 0) {
		execv("/bin/true", argv);
		_exit(127);
	}
	return pid;
}

static int op_vfork(struct actor *a)
{
	wait_true(a, vfork_true());
	return 0;
}

static int op_spawn(struct actor *a)
{
	static char *argv[] = {"true", NULL};
	pid_t pid = 0;
	int error = posix_spawn(&pid, "/bin/true", NULL, NULL, argv, environ);

	errno = error;
	check(a, error == 0);
	wait_true(a, pid);
	return 0;
}

/* A thread that fills its stack, lets others run and checks it. */
struct stack_test {
	struct actor *a;
	uint64_t seed;
	unsigned deep;
	bool right;
};

static __attribute__((noinline)) bool stack_dig(uint64_t seed, unsigned deep)
{
	volatile uint64_t frame[WORDS];
	bool right;

	for (unsigned i = 0; i < WORDS; i++)
		frame[i] = mix64(seed + deep * 1000ull + i);
	if (deep % 8 == 0)
		sched_yield();
	right = deep == 0 || stack_dig(seed, deep - 1);
	for (unsigned i = 0; i < WORDS; i++)
		if (frame[i] != mix64(seed + deep * 1000ull + i))
			right = false;
	return right;
}

static void *stack_thread(void *data)
{
	struct stack_test *t = data;

	t->right = stack_dig(t->seed, t->deep);
	return NULL;
}

static int op_thread(struct actor *a)
{
	struct stack_test tests[3];
	pthread_t threads[3];
	unsigned n = 1 + pick(a, 3);
	pthread_attr_t attr;

	for (unsigned i = 0; i < n; i++) {
		tests[i] = (struct stack_test){.a = a, .seed = rnd(a), .deep = 8 + pick(a, 40)};
		pthread_attr_init(&attr);
		pthread_attr_setstacksize(&attr, (1 + pick(a, 4)) * 512ul * 1024);
		errno = pthread_create(&threads[i], &attr, stack_thread, &tests[i]);
		check(a, errno == 0);
		pthread_attr_destroy(&attr);
	}
	for (unsigned i = 0; i < n; i++) {
		pthread_join(threads[i], NULL);
		if (!tests[i].right)
			fail(a, "the stack of a thread held wrong bytes");
	}
	return 0;
}

static int op_stack(struct actor *a)
{
	if (!stack_dig(rnd(a), 8 + pick(a, 60)))
		fail(a, "this thread's stack held wrong bytes");
	return 0;
}

struct op ops_process[] = {
	{"fork", 8, OP_PROCESS, op_fork},
	{"fork-all", 3, OP_PROCESS | OP_ALONE | OP_SHARED, op_fork_all},
	{"vfork-exec", 2, OP_PROCESS, op_vfork},
	{"posix-spawn", 2, OP_PROCESS, op_spawn},
	{"thread", 3, OP_THREADS, op_thread},
	{"stack", 4, 0, op_stack},
	{0},
};
