#include "rows.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BALLAST 4608ul /* pages: a little more than the limit */
#define SETTLE  20     /* ms without any change: then nothing is under way, unless swap is slow */

struct inject *inject;
static char *ballast;

/* ---- figures ---- */

static char answer[1 << 16];

static const char *call(const char *method, const char *parameters)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	static char request[512];
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), n;
	size_t got = 0;

	n = snprintf(request, sizeof(request),
		     "{\"method\":\"io.upager.Pager.%s\",\"parameters\":{%s}}", method, parameters);
	strncpy(address.sun_path, getenv("UPAGER_SOCKET"), sizeof(address.sun_path) - 1);
	must(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	must(write(fd, request, (size_t)n + 1) == n + 1);
	do {
		ssize_t r = read(fd, answer + got, sizeof(answer) - got);

		must(r > 0);
		got += (size_t)r;
	} while (answer[got - 1]);
	close(fd);
	if (strstr(answer, "\"error\":\""))
		wrong("%s: %s", method, answer);
	return answer;
}

static long number(const char *text, const char *name)
{
	char key[64];
	const char *at;

	snprintf(key, sizeof(key), "\"%s\":", name);
	at = strstr(text, key);
	return at ? strtol(at + strlen(key), NULL, 10) : 0;
}

void set_limit(long bytes)
{
	char parameters[128];
	const char *name = strstr(call("List", ""), "\"name\":\"");

	must(name);
	name += 8;
	snprintf(parameters, sizeof(parameters), "\"group\":\"%.*s\",\"limit\":%ld",
		 (int)strcspn(name, "\""), name, bytes);
	call("SetLimit", parameters);
}

static struct figures look(void)
{
	struct figures f = {0};
	const char *text, *counters;

	/* What was counted is published now and then; at once when a limit is set. */
	set_limit(number(call("List", ""), "limit"));
	text = call("List", "");
	counters = strstr(text, "\"counters\"");
	must(counters);
#define X(name) f.name = number(counters, #name);
	X(zero) X(minor) X(major) X(parked) X(wp_reuse) X(race) X(spurious) X(poisoned) X(gone)
	X(handshake) X(fork) X(remap) X(remove) X(unmap)
	X(messages) X(waited) X(evicted) X(clean) X(same) X(pages_out) X(pages_in) X(readahead)
	X(standby_hits) X(busy) X(stale) X(unmarked) X(put_back) X(retries) X(overruns) X(activate)
	X(migrated) X(reclaims)
#undef X
	f.resident = number(text, "resident");
	text = strstr(call("Tiers", ""), "\"swap0\"");
	must(text);
	f.used = number(text, "used") / (long)PAGE;
	return f;
}

struct figures figures(void)
{
	struct figures last = look(), now;

	for (unsigned i = 0, quiet = 0; i < 200; i++) {
		sleep_ms(SETTLE);
		now = look();
		last.resident = now.resident; /* sampled: it may flicker */
		quiet = memcmp(&now, &last, sizeof(now)) ? 0 : quiet + 1;
		if (quiet == 2)
			return now;
		if (i > 190 && !quiet)
			for (size_t k = 0; k < sizeof(now) / sizeof(long); k++)
				if (((long *)&now)[k] != ((long *)&last)[k])
					fprintf(stderr, "figure %zu: %ld\n", k, ((long *)&now)[k]);
		last = now;
	}
	wrong("it is never quiet");
}

struct figures since(const struct figures *before)
{
	struct figures now = figures();
	long *to = (long *)&now;
	const long *from = (const long *)before;

	for (size_t i = 0; i < sizeof(now) / sizeof(*to); i++)
		to[i] -= from[i];
	return now;
}

void same_as_(int line, const char *what, long value, long low, long high)
{
	if (value >= low && value <= high)
		return;
	if (low == high)
		wrong("line %d: %s is %ld, expected %ld", line, what, value, low);
	wrong("line %d: %s is %ld, expected %ld or more, at most %ld", line, what, value, low, high);
}

/* ---- memory ---- */

/* Files are small in /proc: without stdio, which would take memory. */
static const char *read_proc(const char *path)
{
	static char text[1 << 18];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t got = 0;
	ssize_t n;

	must(fd >= 0);
	while ((n = read(fd, text + got, sizeof(text) - 1 - got)) > 0)
		got += (size_t)n;
	close(fd);
	text[got] = 0;
	return text;
}

/* "um" among the flags of its mapping: missing pages are reported. */
static bool is_registered(const char *at)
{
	const char *line = read_proc("/proc/self/smaps");
	bool covers = false;

	while (line && *line) {
		unsigned long start, end;

		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			covers = start <= (uintptr_t)at && (uintptr_t)at < end;
		if (covers && !strncmp(line, "VmFlags:", 8)) {
			const char *flag = strstr(line, " um");

			return flag && flag < strchr(line, '\n');
		}
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	return false;
}

char *region(size_t pages)
{
	char *at = mmap(NULL, (pages + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(at != MAP_FAILED);
	/* Below it nothing that looks like a stack's guard: else its top page would stay. */
	must(mmap(at, PAGE, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
	at += PAGE;
	must(mprotect(at, pages * PAGE, PROT_READ | PROT_WRITE) == 0);
	for (unsigned i = 0; i < 2000 && !native && !is_registered(at); i++)
		sleep_ms(2);
	must(native || is_registered(at));
	return at;
}

static void ballast_touch(size_t page)
{
	uint64_t *words = (uint64_t *)(ballast + page % BALLAST * PAGE);

	for (unsigned i = 0; i < WORDS; i++)
		words[i] = 0x5555555555555555;
}

void ballast_discard(void)
{
	must(madvise(ballast, BALLAST * PAGE, MADV_DONTNEED) == 0);
}

bool is_out(const char *at, size_t pages)
{
	return native || pages_out(at, pages) == pages;
}

bool is_in(const char *at, size_t pages)
{
	return native || pages_out(at, pages) == 0;
}

void expel(char *at, size_t pages)
{
	for (unsigned round = 0; round < 12; round++) {
		for (size_t i = 0; i < BALLAST; i++) {
			if (i % 16 == 0 && is_out(at, pages))
				return;
			ballast_touch(i);
		}
	}
	wrong("only %zu of %zu pages leave", pages_out(at, pages), pages);
}

void expel_to_tier(char *at, size_t pages)
{
	expel(at, pages);
	/* Frames are a sixteenth of the limit: whoever leaves next takes them. */
	for (size_t i = 0; i < BALLAST; i++)
		ballast_touch(i);
	(void)figures(); /* what is on its way arrives */
	must(is_out(at, pages));
}

void expel_to_standby(char *at, size_t pages, uint64_t salt)
{
	static size_t next;

	fill(at, pages, salt);
	for (size_t i = 0; i < 12 * BALLAST; i++) {
		if (i % 16 == 0 && is_out(at, pages))
			break;
		ballast_touch(next++);
	}
	must(is_out(at, pages));
	(void)figures();
	must(is_out(at, pages));
}

static sigjmp_buf jump;

static void on_signal(int number)
{
	siglongjmp(jump, number);
}

static int signal_of(char *at, bool write)
{
	struct sigaction action = {.sa_handler = on_signal}, old[2];
	int got;

	sigaction(SIGSEGV, &action, &old[0]);
	sigaction(SIGBUS, &action, &old[1]);
	got = sigsetjmp(jump, 1);
	if (!got) {
		if (write)
			*(volatile char *)at = 1;
		else
			(void)*(volatile char *)at;
	}
	sigaction(SIGSEGV, &old[0], NULL);
	sigaction(SIGBUS, &old[1], NULL);
	return got;
}

int signal_of_read(const char *at)
{
	return signal_of((char *)at, false);
}

int signal_of_write(char *at)
{
	return signal_of(at, true);
}

/* ---- threads ---- */

static struct op touchers[TOUCHERS];
static unsigned n_touchers;

static void op_poke(struct op *op)
{
	poke(op->a + (size_t)(op - touchers + 1) * 8, op->salt);
}

void touch_begin(char *at, unsigned threads, bool write)
{
	n_touchers = threads;
	for (unsigned i = 0; i < threads; i++)
		touchers[i] = (struct op){
		    .run = write ? op_poke : op_touch, .a = at, .pages = 1, .salt = 700 + i};
	ops_prepare(touchers, threads);
	ops_go();
}

void touch_end(void)
{
	ops_join(touchers, n_touchers);
}

struct figures touch_together(char *at, bool write)
{
	struct figures before;

	n_touchers = TOUCHERS;
	for (unsigned i = 0; i < TOUCHERS; i++)
		touchers[i] = (struct op){
		    .run = write ? op_poke : op_touch, .a = at, .pages = 1, .salt = 700 + i};
	ops_prepare(touchers, TOUCHERS);
	before = figures();
	daemon_hold(150);
	ops_go();
	daemon_wait();
	touch_end();
	return since(&before);
}

/* ---- outside ---- */

static const char *in_folder(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", getenv("TMPDIR"), name);
	return path;
}

int open_swap(int flags)
{
	int fd = open(in_folder("swap"), flags | O_CLOEXEC);

	must(fd >= 0);
	return fd;
}

static void open_inject(void)
{
	int fd;

	if (!getenv("TMPDIR"))
		return;
	fd = open(in_folder("inject"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	must(fd >= 0 && ftruncate(fd, sizeof(*inject)) == 0);
	inject = mmap(NULL, sizeof(*inject), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	must(inject != MAP_FAILED);
	close(fd);
}

#define MEMORY "/sys/fs/cgroup/memory"

static int cgroup_open(const char *folder, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return open(path, O_WRONLY | O_CLOEXEC);
}

static bool write_number(int fd, long value)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "%ld", value);

	return write(fd, text, (size_t)n) == n;
}

bool cgroup_set(const struct cgroup *group, const char *name, long value)
{
	int fd = cgroup_open(group->path, name);
	bool good = fd >= 0 && write_number(fd, value);

	close(fd);
	return good;
}

void cgroup_enter(struct cgroup *group, pid_t pid)
{
	snprintf(group->path, sizeof(group->path), MEMORY "/upager-rows-%d", getpid());
	if (access(MEMORY "/memory.oom_control", R_OK) || mkdir(group->path, 0700))
		skip("no memory cgroups of version 1 that can be made");
	group->limit = cgroup_open(group->path, "memory.limit_in_bytes");
	group->root = cgroup_open(MEMORY, "cgroup.procs");
	/* Where the machine has swap, the group makes no use of it. */
	must(group->limit >= 0 && group->root >= 0 && cgroup_set(group, "memory.swappiness", 0) &&
	     cgroup_set(group, "cgroup.procs", pid));
}

void cgroup_leave(const struct cgroup *group, pid_t pid)
{
	bool left = write_number(group->limit, -1) && (!pid || write_number(group->root, pid));

	must(left);
	close(group->limit);
	close(group->root);
	for (unsigned i = 0; i < 200 && rmdir(group->path); i++)
		sleep_ms(10); /* a child that has died is not gone yet */
}

/* ---- beginning ---- */

/* Locks what the program itself works with: where files are mapped, and what is anonymous right
 * behind them or holds the heap, the stack or the thread's own data. Not the staging windows: they
 * would take no pages. */
static void lock_ourselves(void)
{
	const char *line = read_proc("/proc/self/maps");
	uintptr_t own = (uintptr_t)__builtin_thread_pointer(), heap = (uintptr_t)malloc(64);
	unsigned long start, end, last_end = 0;
	char rights[8], name[256], one[512];
	bool last = false;

	while (line && *line) {
		name[0] = 0;
		snprintf(one, sizeof(one), "%.*s", (int)strcspn(line, "\n"), line);
		must(sscanf(one, "%lx-%lx %7s %*s %*s %*s %255s", &start, &end, rights, name) >= 3);
		last = rights[0] == 'r' && name[0] != '(' &&
		       (strchr(name, '/') || strstr(name, "[heap]") || strstr(name, "[stack]") ||
			(last && start == last_end && !name[0]) || (start <= own && own < end) ||
			(start <= heap && heap < end));
		if (last && !strstr(name, "upager-exchange"))
			must(mlock((void *)start, end - start) == 0 || errno == ENOMEM ||
			     errno == EAGAIN);
		last_end = end;
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
}

static void begin(void)
{
	lock_ourselves();
	open_inject();
	ballast = native ? map(BALLAST) : region(BALLAST);
	for (size_t i = 0; i < BALLAST; i++)
		ballast_touch(i);
	if (!native)
		(void)figures();
}

int main(int argc, char **argv)
{
	static const struct interleaving *const lists[] = {entry_rows, anonymous_rows, swap_rows,
							   slot_rows, present_rows, other_rows};

	return interleave_main(argc, argv, lists, sizeof(lists) / sizeof(*lists), begin);
}
