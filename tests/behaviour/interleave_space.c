/* A seam in the address space, a sentinel that is gone, pages that a fork keeps shared. */
#include "interleave.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tree/inject.h"

#define WAIT_MS 5000u
#define PART	16ul /* pages */
#define SHARED	2560ul

/* ---- a seam ---- */

static struct inject *open_inject(void)
{
	struct inject *inject;
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/inject", getenv("TMPDIR"));
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	must(fd >= 0 && ftruncate(fd, sizeof(*inject)) == 0);
	inject = mmap(NULL, sizeof(*inject), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	must(inject != MAP_FAILED);
	close(fd);
	return inject;
}

/* The n-th call that was noted, waited for. */
static const struct inject_note *noted(struct inject *inject, unsigned n)
{
	must(n < INJECT_NOTES);
	for (unsigned ms = 0; inject->n_notes <= n; ms++) {
		must(ms < WAIT_MS);
		sleep_ms(1);
	}
	return &inject->notes[n];
}

/* Between the daemon's look at a mapping and its registration the program puts a longer one there,
 * which begins lower: its lower part is registered at once, not when the scan comes round again. */
static void seam(void)
{
	struct inject *inject = open_inject();
	char *at = (char *)0x200000000000, *upper = at + PART * PAGE, *to = map(2 * PART);
	const struct inject_note *note;
	unsigned n = 0, queries = 0;

	if (native)
		return;
	inject->hold = (uintptr_t)upper;
	map_at(upper, PART);
	for (unsigned ms = 0; !inject->held; ms++) {
		must(ms < WAIT_MS);
		sleep_ms(1);
	}
	must(mmap(at, 2 * PART * PAGE, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at); /* raises no event yet */
	inject->hold = 0;
	do {
		note = noted(inject, n++);
		if (note->call == INJECT_QUERY && note->address >= (uintptr_t)at + 2 * PART * PAGE)
			wrong("the scan has left a seam behind");
		queries += note->call == INJECT_QUERY;
	} while (note->call != INJECT_REGISTER || note->address != (uintptr_t)at);
	must(mremap(at, 2 * PART * PAGE, 2 * PART * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	if (!queries)
		skip("without PROCMAP_QUERY nothing tells whether the scan has gone on");
}

/* ---- no sentinel ---- */

/* The one page of this program that is registered and wiped by fork. */
static char *find_sentinel(void)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	unsigned long start = 0, end = 0;
	char line[512], *found = NULL;

	while (file && fgets(line, sizeof(line), file)) {
		unsigned long from, to;

		if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
			start = from;
			end = to;
		}
		if (!strncmp(line, "VmFlags:", 8) && end - start == PAGE && strstr(line, " wf") &&
		    strstr(line, " um")) {
			must(!found);
			found = (char *)start;
		}
	}
	must(file && found);
	fclose(file);
	return found;
}

/* What is unmapped gives its slots back although the page is gone by which the daemon tells that no
 * event is pending: the swap file is too small for all of them. */
static void sentinel_gone(void)
{
	const size_t pages = 8 * MIB / PAGE;

	if (!native)
		must(munmap(find_sentinel(), PAGE) == 0);
	for (unsigned round = 0; round < 8; round++) {
		char *at = map(pages);

		fill(at, pages, round + 1);
		push_out(at, pages);
		must(munmap(at, pages * PAGE) == 0);
	}
	ballast_check();
}

/* ---- shared by a fork ---- */

/* Much of the limit is shared, for as long as both live: what is one's own is not enough. */
static void shared_leave(void)
{
	char *at = map(SHARED), c;
	int go[2], told[2];
	size_t childs = 0;
	pid_t pid;

	fill(at, SHARED, 1);
	must(pipe(go) == 0 && pipe(told) == 0);
	pid = fork();
	must(pid >= 0);
	if (pid == 0) {
		close(go[1]);
		must(read(go[0], &c, 1) == 0);
		childs = pages_out(at, SHARED);
		must(write(told[1], &childs, sizeof(childs)) == sizeof(childs));
		check(at, SHARED, 1);
		_exit(0);
	}
	close(go[0]);
	push_out(at, SHARED);
	printf("parents %zu\n", pages_out(at, SHARED));
	close(go[1]);
	must(read(told[0], &childs, sizeof(childs)) == sizeof(childs));
	printf("childs %zu\n", childs);
	await(pid);
	check(at, SHARED, 1);
	ballast_check();
}

const struct interleaving space_interleavings[] = {
    {"seam", seam},
    {"sentinel-gone", sentinel_gone},
    {"shared-leave", shared_leave},
    {NULL, NULL},
};
