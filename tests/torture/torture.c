/* The torture client's frame: arguments, threads, the choice of operations. See torture.h. */
#include "torture.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

struct world *root, *W;
unsigned depth;
bool complete = true;

static struct op *table[128];
static unsigned n_ops, total_weight;

static struct op *const lists[] = {ops_touch, ops_map,     ops_advice,
				   ops_io,    ops_process, ops_shared, ops_huge, ops_file,
				   ops_save};
#define RARE 20 /* weights below fork's are of this many */

const char *op_name(int op)
{
	return op == -2 ? "verify all" : op < 0 || (unsigned)op >= n_ops ? "-" : table[op]->name;
}

static bool in_list(const char *list, const char *name)
{
	size_t n = strlen(name);

	if (!list || strcmp(list, "all") == 0)
		return true;
	for (const char *p = list; p; p = strchr(p, ',')) {
		p += *p == ',';
		if (strncmp(p, name, n) == 0 && (p[n] == ',' || p[n] == 0))
			return true;
	}
	return false;
}

static void ops_init(const char *wanted, const char *unwanted)
{
	for (unsigned l = 0; l < sizeof lists / sizeof *lists; l++) {
		for (struct op *op = lists[l]; op->name; op++) {
			if (!in_list(wanted, op->name) || (unwanted && in_list(unwanted, op->name)))
				continue;
			if (root->single && op->how & OP_THREADS)
				continue;
			if (!(op->how & (OP_PROCESS | OP_THREADS | OP_ALONE)))
				op->weight *= RARE;
			table[n_ops++] = op;
			total_weight += op->weight;
		}
	}
}

static int op_choose(struct actor *a)
{
	unsigned n = pick(a, total_weight);

	for (unsigned i = 0; i < n_ops; i++) {
		if (n < table[i]->weight)
			return (int)i;
		n -= table[i]->weight;
	}
	return 0;
}

/* --spoil: does a wrong byte come to light? */
static void spoil(struct actor *a)
{
	struct region *r = region_pick(a, ALL_KINDS);
	unsigned i = r ? pick(a, r->pages) : 0;

	if (a->ops < 2000 || !r || page_of(r, i)->flags & (P_UNWRITABLE | P_FREED))
		return;
	/* Again and again: a page may be written before it is read. */
	addr_of(r, i)[pick(a, WORDS)] ^= 1ull << pick(a, 64);
}

void act(struct actor *a)
{
	int op = op_choose(a);
	struct log_entry *e;
	const unsigned how = table[op]->how;

	if (root->spoil && a->index == 0)
		spoil(a);
	if (how & OP_SHARED && !complete)
		return;
	a->ops++;
	e = &a->log[a->ops % LOG];
	*e = (struct log_entry){.number = a->ops, .op = op};
	root->beats[a->index].op = op;
	root->beats[a->index].number = a->ops;
	beat(a);
	if (depth == 0) {
		if (how & OP_ALONE)
			pthread_rwlock_wrlock(&root->lock);
		else
			pthread_rwlock_rdlock(&root->lock);
	}
	e->result = table[op]->run(a);
	if (depth == 0)
		pthread_rwlock_unlock(&root->lock);
	root->totals[a->index].ops++;
	__atomic_add_fetch(e->result ? &root->idle[op] : &root->done[op], 1, __ATOMIC_RELAXED);
	children_reap(a, false);
}

static void *actor_main(void *data)
{
	struct actor *a = data;
	char name[16];

	snprintf(name, sizeof name, "actor%u", a->index);
	if (!root->single)
		prctl(PR_SET_NAME, name);
	root->beats[a->index].pid = getpid();
	signals_thread(a);
	while (!__atomic_load_n(&root->stop, __ATOMIC_RELAXED))
		act(a);
	children_reap(a, true);
	root->beats[a->index].op = -2;
	actor_verify(a);
	shared_verify(a, a->index);
	root->beats[a->index].op = -1;
	return NULL;
}

static void world_make(uint64_t seed, unsigned actors, uint64_t mib)
{
	uint64_t pages = mib * 256;
	uint32_t capacity, budget;
	uint64_t slots, header = (sizeof(struct world) + PAGE - 1) & ~(PAGE - 1), size;
	pthread_rwlockattr_t attr;

	/* A quarter goes to what is shared, the rest to the actors in equal parts. */
	budget = (uint32_t)(pages * 3 / 4 / actors);
	capacity = budget / 3;
	if (capacity > pages / 4 / STREAMS)
		capacity = (uint32_t)(pages / 4 / STREAMS);
	if (capacity < 64)
		capacity = 64;
	slots = (uint64_t)(actors * REGIONS + STREAMS) * capacity;
	size = header + slots * sizeof(struct page);
	size = (size + PAGE - 1) & ~(PAGE - 1);
	root = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
		    -1, 0);
	if (root == MAP_FAILED) {
		perror("torture: mmap");
		exit(1);
	}
	W = root;
	W->seed = seed;
	W->size = size;
	W->pages_at = header;
	W->capacity = capacity;
	W->budget = budget;
	W->actors = actors;
	W->signal_rng = mix64(seed ^ 0x51617);
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&W->lock, &attr);
	for (unsigned i = 0; i < actors; i++) {
		struct actor *a = &W->actor[i];

		a->index = i;
		a->rng = mix64(seed * 1000003 + i);
		a->number = (uint64_t)(i + 1) << 30;
		W->beats[i].op = -1;
	}
}

static void usage(void)
{
	fprintf(stderr,
		"usage: torture [--seed N] [--seconds S] [--threads N] [--size MiB] [--single]\n"
		"               [--ops LIST|all] [--without LIST] [--dir DIR] [--stall SECONDS]\n"
		"               [--sigbus-ok] [--hold] [--spoil] [--verbose] [--list]\n"
		"exit status: 0 all right, 1 wrong bytes or a failed call, 2 stalled,\n"
		"             3 SIGBUS with --sigbus-ok\n");
	exit(64);
}

static uint64_t number(const char *text, uint64_t min, uint64_t max)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(text, &end, 0);
	if (errno || *end || end == text || n < min || n > max) {
		fprintf(stderr, "torture: %s: expected a number from %lu to %lu\n", text, min, max);
		exit(64);
	}
	return n;
}

static void report(time_t started)
{
	struct totals t = {0};
	time_t seconds = time(NULL) - started;

	for (unsigned i = 0; i < root->actors; i++) {
		t.ops += root->totals[i].ops;
		t.verified += root->totals[i].verified;
		t.forks += root->totals[i].forks;
		t.spawns += root->totals[i].spawns;
		t.signals += root->totals[i].signals;
	}
	for (unsigned i = 0; root->verbose && i < n_ops; i++)
		printf("  %-16s %8u done, %8u with nothing to do\n", table[i]->name, root->done[i],
		       root->idle[i]);
	printf("torture: ok: seed %lu, %ld s, %lu operations (%lu/s), %lu pages checked, %lu forks, "
	       "%lu execs, %lu signals\n",
	       root->seed, (long)seconds, t.ops, t.ops / (uint64_t)(seconds ? seconds : 1),
	       t.verified, t.forks, t.spawns, t.signals);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
	    {"seed", required_argument, NULL, 's'},	 {"seconds", required_argument, NULL, 't'},
	    {"threads", required_argument, NULL, 'n'},	 {"size", required_argument, NULL, 'm'},
	    {"ops", required_argument, NULL, 'o'},	 {"without", required_argument, NULL, 'w'},
	    {"dir", required_argument, NULL, 'd'},	 {"stall", required_argument, NULL, 'l'},
	    {"single", no_argument, NULL, '1'},		 {"sigbus-ok", no_argument, NULL, 'b'},
	    {"hold", no_argument, NULL, 'h'},		 {"verbose", no_argument, NULL, 'v'},
	    {"list", no_argument, NULL, 'L'},		 {"spoil", no_argument, NULL, 'S'},
	    {0},
	};
	struct timespec now;
	uint64_t seed, seconds = 10, threads = 4, size = 128, stall = 30;
	const char *wanted = NULL, *unwanted = NULL, *dir = getenv("TMPDIR");
	bool single = false, hold = false, verbose = false, sigbus_ok = false, list = false;
	bool spoiled = false;
	pthread_t ids[ACTORS];
	time_t started = time(NULL);
	int option;

	clock_gettime(CLOCK_REALTIME, &now);
	seed = mix64((uint64_t)now.tv_nsec ^ (uint64_t)getpid() << 32) % 1000000;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 's': seed = number(optarg, 0, UINT64_MAX); break;
		case 't': seconds = number(optarg, 1, 10000000); break;
		case 'n': threads = number(optarg, 1, ACTORS); break;
		case 'm': size = number(optarg, 4, 1u << 20); break;
		case 'l': stall = number(optarg, 1, 100000); break;
		case 'o': wanted = optarg; break;
		case 'w': unwanted = optarg; break;
		case 'd': dir = optarg; break;
		case '1': single = true; break;
		case 'b': sigbus_ok = true; break;
		case 'h': hold = true; break;
		case 'v': verbose = true; break;
		case 'L': list = true; break;
		case 'S': spoiled = true; break;
		default: usage();
		}
	}
	if (optind != argc)
		usage();
	world_make(seed, single ? 1 : (unsigned)threads, size);
	root->single = single;
	root->hold = hold;
	root->verbose = verbose;
	root->sigbus_ok = sigbus_ok;
	root->spoil = spoiled;
	root->stall_s = (unsigned)stall;
	root->dir = dir ? dir : "/tmp";
	ops_init(wanted, unwanted);
	if (list) {
		for (unsigned i = 0; i < n_ops; i++)
			puts(table[i]->name);
		return 0;
	}
	if (n_ops == 0)
		usage();
	printf("torture: seed %lu, %lu s, %u threads, %lu MiB%s\n", seed, seconds, root->actors,
	       size, single ? ", single" : "");
	fflush(stdout);
	signals_init();
	save_init();
	streams_make();
	files_make(&W->actor[0]);
	if (!single)
		watchdog_start();
	alarm_arm();
	if (single) {
		struct actor *a = &W->actor[0];

		a->index = 0;
		root->beats[0].pid = getpid();
		signals_thread(a);
		while (time(NULL) - started < (time_t)seconds)
			act(a);
		root->stop = 1;
	} else {
		for (unsigned i = 0; i < root->actors; i++)
			check(&W->actor[0],
			      pthread_create(&ids[i], NULL, actor_main, &W->actor[i]) == 0);
		while (time(NULL) - started < (time_t)seconds)
			usleep(50000);
		__atomic_store_n(&root->stop, 1, __ATOMIC_RELAXED);
	}
	if (single)
		actor_main(&W->actor[0]);
	else
		for (unsigned i = 0; i < root->actors; i++)
			pthread_join(ids[i], NULL);
	if (root->failed)
		return root->failed == 3 ? 3 : 1;
	files_end(&W->actor[0]);
	report(started);
	return 0;
}
