/*
 * How long one fault takes, as the program that makes it sees it: latency KIND SAMPLES [bare].
 *
 *   standby   a page that was evicted, but is still in memory, is read
 *   zero      a page is written for the first time
 *   wp        a page that is protected, as it came back unchanged, is written
 *
 * Without `bare` it runs under `upager run`: its limit is what makes pages leave. What shall be
 * zero needs `register = eager`, what shall be protected `clean = wp`. With `bare` it serves
 * itself, by the loop of bare.c. One thread, one fault at a time, pages in a random order, none
 * beside another. Prints JSON; every page is checked.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <upager/upager.h>

#include "bare.h"
#include "now.h"

#define PAGE_BYTES 4096u
#define TARGETS	   64u		/* pages of one batch */
#define STRIDE	   (256u << 10) /* from one to the next: no neighbours that come along */
#define AREA	   ((size_t)TARGETS * STRIDE)
#define SETTLE_US  5000 /* what is still on its way to the disk arrives */
#define PATIENCE   50u	/* batches that may fail in a row */

enum kind { STANDBY, ZERO, WP };

static const char *const kind_names[] = {"standby", "zero", "wp", NULL};

struct rig {
	enum kind kind;
	struct upager *upager; /* NULL: bare */
	struct bare *bare;
	char *contents; /* what the bare loop copies from */
	char *area;	/* one target in each STRIDE of it */
	char *ballast;	/* what pushes them out */
	size_t ballast_pages, next;
	int pagemap;
	uint64_t version; /* of the targets' contents */
	uint64_t random;
	uint64_t *times;
	size_t wanted, n;
	uint64_t wrong;
};

static _Noreturn void die(const char *what, int error)
{
	fprintf(stderr, "latency: %s: %s\n", what, strerror(error));
	exit(2);
}

static char *map(size_t length)
{
	char *memory =
	    mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		die("cannot map memory", errno);
	madvise(memory, length, MADV_NOHUGEPAGE);
	return memory;
}

static volatile uint64_t *target(const struct rig *rig, size_t i)
{
	return (volatile uint64_t *)(rig->area + i * STRIDE);
}

/* Writes the targets, with contents that none has had before. */
static void fill(struct rig *rig)
{
	rig->version++;
	for (size_t i = 0; i < TARGETS; i++) {
		*target(rig, i) = mix(rig->version + i);
		if (rig->contents)
			*(uint64_t *)(rig->contents + i * STRIDE) = mix(rig->version + i);
	}
}

static bool right(const struct rig *rig, size_t i, uint64_t value)
{
	return value == (rig->kind == STANDBY ? mix(rig->version + i) : 0);
}

/* => whether all targets are out: their entries are neither present (63) nor empty. */
static bool all_out(const struct rig *rig)
{
	for (size_t i = 0; i < TARGETS; i++) {
		off_t at = (off_t)((uintptr_t)target(rig, i) / PAGE_BYTES * sizeof(uint64_t));
		uint64_t entry;

		if (pread(rig->pagemap, &entry, sizeof(entry), at) != sizeof(entry))
			die("cannot read the pagemap", EIO);
		if (entry >> 63 || !entry)
			return false;
	}
	return true;
}

static bool push_out(struct rig *rig)
{
	for (size_t i = 0; i < 4 * rig->ballast_pages; i++) {
		uint64_t *page = (uint64_t *)(rig->ballast + rig->next * PAGE_BYTES);

		if (i % 64 == 0 && all_out(rig))
			return true;
		page[0] = page[511] = next_random(&rig->random);
		rig->next = (rig->next + 1) % rig->ballast_pages;
	}
	return false;
}

static void protect(struct rig *rig)
{
	uint64_t sum = 0;

	if (rig->bare) {
		bare_protect(rig->bare, rig->area, AREA);
		return;
	}
	for (size_t i = 0; i < TARGETS; i++)
		sum += *target(rig, i); /* it comes back, and is protected */
	if (!sum)
		rig->wrong++;
}

/* => the targets are such that the next touch of each is a fault of the kind. */
static bool prepare(struct rig *rig)
{
	if (rig->kind == ZERO) {
		rig->area += AREA;
		return true;
	}
	fill(rig);
	if (rig->bare && rig->kind == STANDBY)
		return madvise(rig->area, AREA, MADV_DONTNEED) == 0;
	if (!rig->bare && !push_out(rig))
		return false;
	usleep(SETTLE_US);
	if (rig->kind == WP)
		protect(rig);
	return true;
}

static uint64_t majors(const struct rig *rig)
{
	struct upager_stat stat;
	int r = rig->upager ? upager_stat(rig->upager, &stat) : 0;

	if (r < 0)
		die("cannot ask the daemon", -r);
	return rig->upager ? stat.major : 0;
}

static uint64_t touch(struct rig *rig, size_t i)
{
	volatile uint64_t *word = target(rig, i);
	uint64_t value, started = now_ns(), took;

	if (rig->kind == STANDBY) {
		value = *word;
		took = now_ns() - started;
	} else {
		word[1] = 1;
		took = now_ns() - started;
		value = rig->kind == ZERO ? *word : *word - mix(rig->version + i);
	}
	rig->wrong += !right(rig, i, value);
	return took;
}

/* A batch of which a page had left memory already says nothing: it is not kept. */
static bool measure_batch(struct rig *rig)
{
	uint64_t before, times[TARGETS];
	size_t order[TARGETS];

	if (!prepare(rig))
		return false;
	for (size_t i = 0; i < TARGETS; i++) {
		size_t other = below(next_random(&rig->random), i + 1);

		order[i] = order[other];
		order[other] = i;
	}
	before = majors(rig);
	for (size_t i = 0; i < TARGETS; i++)
		times[i] = touch(rig, order[i]);
	if (majors(rig) != before)
		return false;
	for (size_t i = 0; i < TARGETS && rig->n < rig->wanted; i++)
		rig->times[rig->n++] = times[i];
	return true;
}

static void open_paged(struct rig *rig)
{
	struct upager_stat stat;
	int r = upager_open(NULL, &rig->upager);

	if (r == 0)
		r = upager_stat(rig->upager, &stat);
	if (r < 0)
		die("it has to run under upager, or bare", -r);
	rig->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (rig->kind != ZERO) {
		rig->ballast_pages = 2 * stat.limit / PAGE_BYTES;
		rig->ballast = map(rig->ballast_pages * PAGE_BYTES);
	}
}

static void rig_init(struct rig *rig, bool bare)
{
	size_t batches = rig->kind == ZERO ? rig->wanted / TARGETS + 2 : 0;
	size_t length = AREA * (batches + 1);
	int r;

	rig->area = map(length);
	rig->times = calloc(rig->wanted, sizeof(*rig->times));
	if (!bare) {
		open_paged(rig);
		usleep(300000); /* the daemon sees the mapping, and registers it */
		return;
	}
	if (rig->kind != ZERO)
		rig->contents = map(length);
	r = bare_new(rig->area, length, rig->contents, &rig->bare);
	if (r < 0)
		die("no userfaultfd", -r);
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	struct rig rig = {};
	uint64_t sum = 0;

	while (argc > 2 && kind_names[rig.kind] && strcmp(argv[1], kind_names[rig.kind]))
		rig.kind++;
	rig.wanted = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
	if (!rig.wanted || !kind_names[rig.kind] || argc > 4) {
		fputs("usage: latency standby|zero|wp SAMPLES [bare]\n", stderr);
		return 2;
	}
	rig_init(&rig, argc == 4 && !strcmp(argv[3], "bare"));
	for (unsigned failed = 0; rig.n < rig.wanted;) {
		failed = measure_batch(&rig) ? 0 : failed + 1;
		if (failed > PATIENCE)
			die("the pages do not come into the state that is measured", EAGAIN);
	}
	qsort(rig.times, rig.n, sizeof(*rig.times), ascending);
	for (size_t i = 0; i < rig.n; i++)
		sum += rig.times[i];
	printf("{\"kind\": \"%s\", \"samples\": %zu, \"p50_ns\": %" PRIu64 ", \"p99_ns\": %" PRIu64
	       ", \"mean_ns\": %" PRIu64 ", \"wrong\": %" PRIu64 "}\n",
	       kind_names[rig.kind], rig.n, rig.times[rig.n / 2], rig.times[rig.n * 99 / 100],
	       sum / rig.n, rig.wrong);
	return rig.wrong ? 1 : 0;
}
