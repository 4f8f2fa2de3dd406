#include "interleave.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LATE	3 /* status of a child whose range had gone before the fork */
#define BALLAST (20 * MIB / PAGE)

bool native;
static const char *subject;
static char *ballast;
static uint64_t ballast_salt;
static pid_t agents[2], upagerd;
static int to_helper, from_helper;

_Noreturn void wrong(const char *format, ...)
{
	char line[512];
	va_list args;
	int n = snprintf(line, sizeof(line), "%s (pid %d): ", subject, (int)getpid());

	va_start(args, format);
	n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, format, args);
	va_end(args);
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	line[n++] = '\n';
	_exit(write(2, line, (size_t)n) < 0 ? 2 : 1);
}

_Noreturn void skip(const char *reason)
{
	printf("skip %s\n", reason);
	fflush(stdout);
	_exit(77);
}

void sleep_ms(unsigned ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l};

	while (nanosleep(&ts, &ts) < 0)
		must(errno == EINTR);
}

uint64_t clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- memory ---- */

static inline uint64_t word_of(uint64_t salt, unsigned i)
{
	uint64_t x = (salt * 1000003 + i) * 0xd6e8feb86659fd93ull;

	return salt == 0 ? 0 : x ^ x >> 31;
}

static bool page_holds(const uint64_t *words, uint64_t salt, unsigned *ret_word)
{
	for (unsigned i = 0; i < WORDS; i++) {
		if (words[i] != word_of(salt, i)) {
			*ret_word = i;
			return false;
		}
	}
	return true;
}

char *map(size_t pages)
{
	char *at =
	    mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(at != MAP_FAILED);
	return at;
}

char *map_at(char *at, size_t pages)
{
	char *got = mmap(at, pages * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	must(got == at);
	return at;
}

void fill(char *at, size_t pages, uint64_t salt)
{
	for (size_t i = 0; i < pages; i++)
		for (unsigned w = 0; w < WORDS; w++)
			((uint64_t *)(at + i * PAGE))[w] = word_of(salt ? salt + i : 0, w);
}

static _Noreturn void wrong_page(const char *at, size_t i, uint64_t salt, unsigned word)
{
	wrong("WRONG BYTES at %p (page %zu), word %u: expected %#lx, found %#lx", at + i * PAGE, i,
	      word, word_of(salt ? salt + i : 0, word), ((uint64_t *)(at + i * PAGE))[word]);
}

void check(const char *at, size_t pages, uint64_t salt)
{
	unsigned word;

	for (size_t i = 0; i < pages; i++)
		if (!page_holds((uint64_t *)(at + i * PAGE), salt ? salt + i : 0, &word))
			wrong_page(at, i, salt, word);
}

void check_either(const char *at, size_t pages, uint64_t salt)
{
	unsigned word;

	for (size_t i = 0; i < pages; i++)
		if (!page_holds((uint64_t *)(at + i * PAGE), 0, &word) &&
		    !page_holds((uint64_t *)(at + i * PAGE), salt + i, &word))
			wrong_page(at, i, salt, word);
}

bool is_mapped(char *at)
{
	return msync(at, PAGE, MS_ASYNC) == 0;
}

/* ---- eviction ---- */

size_t pages_out(const char *at, size_t pages)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entries[512];
	size_t out = 0;

	must(fd >= 0);
	for (size_t i = 0; i < pages; i += 512) {
		size_t n = pages - i < 512 ? pages - i : 512;

		must(pread(fd, entries, n * 8, (off_t)(((uintptr_t)at / PAGE + i) * 8)) ==
		     (ssize_t)n * 8);
		for (size_t k = 0; k < n; k++)
			out += entries[k] >> 62 & 1 && entries[k] >> 57 & 1;
	}
	close(fd);
	return out;
}

/* "um" among them: registered with a userfaultfd. */
static void print_flags(const char *at)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	bool covers = false;
	char line[512];

	while (file && fgets(line, sizeof(line), file)) {
		unsigned long start, end;

		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			covers = start <= (uintptr_t)at && (uintptr_t)at < end;
		if (covers &&
		    (strchr(line, '-') || !strncmp(line, "VmFlags", 7) || !strncmp(line, "Rss", 3)))
			fputs(line, stdout);
	}
	if (file)
		fclose(file);
}

void push_out(const char *at, size_t pages)
{
	if (!ballast)
		ballast = map(BALLAST);
	for (unsigned i = 0; i < 12; i++) {
		fill(ballast, BALLAST, ballast_salt += BALLAST);
		/* What is small may be brought back by readahead. */
		if (native || pages < 256 || pages_out(at, pages) >= pages - pages / 4)
			return;
	}
	print_flags(at);
	wrong("only %zu of %zu pages leave", pages_out(at, pages), pages);
}

void ballast_check(void)
{
	if (ballast)
		check(ballast, BALLAST, ballast_salt);
}

/* ---- stopping ---- */

/* Children of `parent` that are called `name`, oldest first. */
static unsigned children(pid_t parent, const char *name, pid_t *ret, unsigned max)
{
	unsigned long long started[8];
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	unsigned n = 0;

	must(dir && max <= 8);
	while ((entry = readdir(dir))) {
		char path[300], text[1024], *end, *begin;
		unsigned long long start;
		int parent_pid, fd;
		unsigned at;
		ssize_t got;

		snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		got = read(fd, text, sizeof(text) - 1);
		close(fd);
		if (got <= 0)
			continue;
		text[got] = 0;
		begin = strchr(text, '(');
		end = strrchr(text, ')');
		if (!begin || !end || strncmp(begin + 1, name, (size_t)(end - begin - 1)) != 0 ||
		    sscanf(end + 2,
			   "%*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d "
			   "%*d %*d %*d %llu",
			   &parent_pid, &start) != 2 ||
		    parent_pid != parent)
			continue;
		if (n == max)
			break;
		for (at = n++; at && started[at - 1] > start; at--) {
			started[at] = started[at - 1];
			ret[at] = ret[at - 1];
		}
		started[at] = start;
		ret[at] = (pid_t)atoi(entry->d_name);
	}
	closedir(dir);
	return n;
}

pid_t agent(unsigned index)
{
	return agents[index];
}

/* All threads of the process have stopped. */
static bool has_stopped(pid_t pid)
{
	char path[300], text[256];
	struct dirent *entry;
	bool all = true;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		ssize_t n = -1;
		int fd;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/stat", (int)pid, entry->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			n = read(fd, text, sizeof(text) - 1);
			close(fd);
		}
		if (n > 0) {
			text[n] = 0;
			all = all && strstr(text, ") T ");
		}
	}
	if (dir)
		closedir(dir);
	return all;
}

void stop(pid_t pid)
{
	if (!pid)
		return;
	must(kill(pid, SIGSTOP) == 0);
	for (unsigned i = 0; i < 2000 && !has_stopped(pid); i++)
		sleep_ms(1);
	must(has_stopped(pid));
}

void cont(pid_t pid)
{
	if (pid)
		must(kill(pid, SIGCONT) == 0);
}

/* It waits for a command, or for the gate: it does not hold it. */
static bool sleeps_on_futex(pid_t pid)
{
	char path[64], text[8] = "";
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/syscall", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	must(fd >= 0 && read(fd, text, 4) == 4);
	close(fd);
	return !strcmp(text, "202 "); /* futex(2) */
}

void stop_idle(pid_t pid)
{
	if (!pid)
		return;
	for (unsigned i = 0; i < 1000; i++) {
		stop(pid);
		if (sleeps_on_futex(pid))
			return;
		cont(pid);
		sleep_ms(5);
	}
	wrong("the agent is always busy");
}

/* times > 0: stopped and continued so often, for moments. */
struct hold {
	pid_t pid;
	unsigned ms, times;
};

/* The helper's whole life. */
static int hold_loop(void)
{
	struct hold hold;

	while (read(0, &hold, sizeof(hold)) == sizeof(hold)) {
		for (unsigned seed = 1; hold.times; hold.times--) {
			kill(hold.pid, SIGSTOP);
			usleep((useconds_t)rand_r(&seed) % 4000);
			kill(hold.pid, SIGCONT);
			usleep((useconds_t)rand_r(&seed) % 4000);
		}
		if (!hold.ms)
			continue;
		stop(hold.pid);
		if (write(1, "s", 1) != 1)
			break;
		sleep_ms(hold.ms);
		cont(hold.pid);
		if (write(1, "c", 1) != 1)
			break;
	}
	return 0;
}

static void start_helper(void)
{
	char *const arguments[] = {"interleave", "hold", NULL}, *const environment[] = {NULL};
	posix_spawn_file_actions_t actions;
	int down[2], up[2];
	pid_t pid;

	must(pipe2(down, O_CLOEXEC) == 0 && pipe2(up, O_CLOEXEC) == 0);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, down[0], 0);
	posix_spawn_file_actions_adddup2(&actions, up[1], 1);
	must(posix_spawn(&pid, "/proc/self/exe", &actions, NULL, arguments, environment) == 0);
	posix_spawn_file_actions_destroy(&actions);
	close(down[0]);
	close(up[1]);
	to_helper = down[1];
	from_helper = up[0];
}

static void expect(char what)
{
	char c = 0;

	must(read(from_helper, &c, 1) == 1 && c == what);
}

void daemon_hold(unsigned ms)
{
	struct hold hold = {upagerd, ms, 0};

	must(write(to_helper, &hold, sizeof(hold)) == sizeof(hold));
	expect('s');
}

void agent_flicker(unsigned times)
{
	struct hold hold = {agents[0], 0, times};

	must(write(to_helper, &hold, sizeof(hold)) == sizeof(hold));
}

void daemon_wait(void)
{
	expect('c');
}

/* ---- threads ---- */

static _Atomic unsigned ready, started;

/* A first touch deeper in its stack would wait for the daemon. */
static __attribute__((noinline)) void touch_stack(void)
{
	volatile char depth[16 * PAGE];

	for (size_t i = 0; i < sizeof(depth); i += PAGE)
		depth[i] = 0;
}

/* Its change is made, only its event has not been read. */
static bool waits_for_event(pid_t tid)
{
	char path[64], text[64] = "";
	ssize_t n = -1;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/wchan", (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	return n > 0 && !strncmp(text, "userfaultfd_event_wait", 22);
}

static void *op_thread(void *context)
{
	struct op *op = context;
	uint64_t begin;

	touch_stack();
	op->tid = gettid();
	if (op->forks)
		await(fork_check((char *)((uintptr_t)&ready & ~(PAGE - 1)), 0, 0, false));
	atomic_fetch_add(&ready, 1);
	while (!atomic_load(&started))
		sched_yield();
	if (op->delay)
		sleep_ms(op->delay);
	for (struct op *earlier = op->first; earlier < op; earlier++)
		while (earlier->delay < op->delay && earlier->run != op_touch &&
		       !atomic_load(&earlier->done) && !waits_for_event(earlier->tid))
			sleep_ms(1);
	begin = clock_ms();
	op->run(op);
	op->took = clock_ms() - begin;
	atomic_store(&op->done, true);
	return NULL;
}

void ops_prepare(struct op *ops, unsigned n)
{
	atomic_store(&ready, 0);
	atomic_store(&started, 0);
	for (unsigned i = 0; i < n; i++)
		ops[i].first = ops;
	for (unsigned i = 0; i < n; i++)
		must((errno = pthread_create(&ops[i].thread, NULL, op_thread, &ops[i])) == 0);
	while (atomic_load(&ready) < n)
		sched_yield();
}

void ops_go(void)
{
	atomic_store(&started, 1);
}

void ops_join(struct op *ops, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		must((errno = pthread_join(ops[i].thread, NULL)) == 0);
}

unsigned ops_waited(const struct op *ops, unsigned n, unsigned ms)
{
	unsigned waited = 0;

	for (unsigned i = 0; i < n; i++)
		waited += ops[i].took >= ms;
	return waited;
}

void op_unmap(struct op *op)
{
	must(munmap(op->a, op->pages * PAGE) == 0);
}

void op_remap(struct op *op)
{
	size_t length = op->pages * PAGE;

	must(mremap(op->a, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, op->b) == op->b);
}

/* ENOMEM: another thread has taken the range away meanwhile. */
void op_discard(struct op *op)
{
	must(madvise(op->a, op->pages * PAGE, MADV_DONTNEED) == 0 || errno == ENOMEM);
}

void op_map_fill(struct op *op)
{
	while (mmap(op->a, op->pages * PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != op->a)
		must(errno == EEXIST); /* the one who unmaps it is late */
	fill(op->a, op->pages, op->salt);
}

void op_fill(struct op *op)
{
	fill(op->a, op->pages, op->salt);
}

void op_touch(struct op *op)
{
	op->word = *(volatile uint64_t *)op->a;
}

pid_t fork_check(char *at, size_t pages, uint64_t salt, bool either)
{
	pid_t pid = fork();

	must(pid >= 0);
	if (pid)
		return pid;
	if (!is_mapped(at))
		_exit(LATE);
	if (either)
		check_either(at, pages, salt);
	else
		check(at, pages, salt);
	_exit(0);
}

void await(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		must(errno == EINTR);
	if (WIFEXITED(status) && WEXITSTATUS(status) == LATE)
		printf("late\n");
	else if (status)
		wrong("child %d ended with %s %d", (int)pid,
		      WIFSIGNALED(status) ? "signal" : "status",
		      WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

pid_t daemon_pid(void)
{
	return upagerd;
}

int interleave_main(int argc, char **argv, const struct interleaving *const *lists, size_t n,
		    void (*begin)(void))
{
	subject = argc > 1 ? argv[1] : "";
	if (!strcmp(subject, "hold"))
		return hold_loop();
	setvbuf(stdout, NULL, _IOLBF, 0);
	/* Agents are ready a moment after the program has begun. */
	for (unsigned i = 0; i < 100 && children(getpid(), "upager-agent", agents, 2) < 2 &&
			     getenv("UPAGER_SOCKET");
	     i++)
		sleep_ms(10);
	native = !agents[0];
	if (!native)
		must(children(getppid(), "upagerd", &upagerd, 1) == 1);
	start_helper();
	for (size_t l = 0; l < n; l++) {
		for (const struct interleaving *i = lists[l]; i->name; i++) {
			if (argc < 2)
				puts(i->name);
			if (strcmp(i->name, subject) != 0)
				continue;
			if (begin)
				begin();
			i->run();
			ballast_check();
			printf("ok %s\n", subject);
			return 0;
		}
	}
	return argc < 2 ? 0 : 64;
}
