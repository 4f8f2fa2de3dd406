/* Mappings: made, moved, dropped, protected, locked. */
#include "behave.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

static void plain(void)
{
	struct area a = area_start();

	area_refill(&a, 77);
	area_check(&a);
}

/* Pages that hold one byte over and over, and pages never written. */
static void same_filled(void)
{
	struct area a = area_map(mebibytes * MIB / PAGE, 0);

	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < a.pages; i++)
			memset(page_at(&a, i), (int)(i % 7) * round, PAGE);
		for (size_t i = 0; i < a.pages; i++)
			for (size_t k = 0; k < PAGE; k += 61)
				if (((unsigned char *)page_at(&a, i))[k] != (i % 7) * (unsigned)round)
					wrong("page %zu, byte %zu is wrong", i, k);
	}
}

/* Reads of pages never written take no memory, and are zeros. */
static void zero_reads(void)
{
	struct area a = area_map(4 * mebibytes * MIB / PAGE, 0);

	area_check(&a);
	for (size_t i = 0; i < a.pages; i += 3)
		page_fill(page_at(&a, i), i + 1);
	for (size_t i = 0; i < a.pages; i++)
		page_check(page_at(&a, i), i % 3 == 0 ? i + 1 : 0);
}

static void scans(void)
{
	struct area a = area_start();

	for (size_t i = a.pages; i-- > 0;)
		page_check(page_at(&a, i), a.salt + i);
	for (size_t step = 2; step < 40; step += 7)
		for (size_t i = 0; i < a.pages; i += step)
			page_check(page_at(&a, i), a.salt + i);
	for (size_t i = 0, x = 1; i < a.pages; i++, x = x * 1103515245 + 12345)
		page_check(page_at(&a, x % a.pages), a.salt + x % a.pages);
}

static void unmap(void)
{
	struct area a = area_start(), b = area_part(&a, a.pages / 4, a.pages / 2), c;

	must(munmap(b.at, b.pages * PAGE) == 0);
	c = area_part(&a, 0, a.pages / 4);
	area_check(&c);
	c = area_part(&a, a.pages * 3 / 4, a.pages / 4);
	area_check(&c);
	c = area_new(a.pages / 2, 500000); /* most likely into the hole */
	area_check(&c);
	c = area_part(&a, 0, a.pages / 4);
	area_check(&c);
	for (int round = 0; round < 50; round++) {
		struct area d = area_new(512, 7000 + (uint64_t)round);

		area_check(&d);
		must(munmap(d.at, d.pages * PAGE) == 0);
	}
}

static void fixed(void)
{
	struct area a = area_start(), hole = area_part(&a, a.pages / 4, a.pages / 2), b;

	must(mmap(hole.at, hole.pages * PAGE, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == hole.at);
	hole.salt = 0;
	for (int round = 0; round < 2; round++) {
		area_check(&hole);
		b = area_part(&a, 0, a.pages / 4);
		area_check(&b);
		b = area_part(&a, a.pages * 3 / 4, a.pages / 4);
		area_check(&b);
		area_refill(&hole, 31337);
	}
	area_check(&hole);
}

static void resize(struct area *a, size_t pages)
{
	a->at = mremap(a->at, a->pages * PAGE, pages * PAGE, MREMAP_MAYMOVE);
	must(a->at != MAP_FAILED);
	a->pages = pages;
}

static void mremap_grow(void)
{
	struct area a = area_start(), tail;
	size_t old = a.pages;

	resize(&a, old * 2);
	tail = (struct area){page_at(&a, old), old, 0};
	area_check(&tail);
	a.pages = old;
	area_check(&a);
	area_refill(&tail, 99000);
	area_check(&a);
	area_check(&tail);
}

static void mremap_shrink(void)
{
	struct area a = area_start(), tail;
	size_t old = a.pages;

	resize(&a, old / 2);
	area_check(&a);
	resize(&a, old);
	tail = (struct area){page_at(&a, old / 2), old / 2, 0};
	area_check(&tail); /* what was cut off does not come back */
	a.pages = old / 2;
	area_check(&a);
}

static void mremap_move(void)
{
	struct area a = area_start();

	for (int round = 0; round < 6; round++) {
		struct area to = area_map(a.pages, 0);

		must(mremap(a.at, a.pages * PAGE, a.pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			    to.at) == to.at);
		a.at = to.at;
		if (round % 2)
			area_check(&a);
	}
	area_check(&a);
}

static void mremap_dontunmap(void)
{
	struct area a = area_start(), old = a;

	a.at = mremap(a.at, a.pages * PAGE, a.pages * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	if (a.at == MAP_FAILED && errno == EINVAL)
		skip("this kernel has no MREMAP_DONTUNMAP for anonymous memory");
	must(a.at != MAP_FAILED);
	old.salt = 0;
	area_check(&old);
	area_check(&a);
	area_refill(&old, 4242);
	area_check(&a);
	area_check(&old);
}

/* realloc of a large block is mremap. */
static void growing_block(void)
{
	size_t pages = mebibytes * MIB / PAGE, n = 1;
	struct area a = {.at = NULL, .salt = 11};

	while (n < pages) {
		size_t next = n + n / 3 + 64;
		char *at = realloc(a.at, next * PAGE);

		must(at != NULL);
		a.at = at;
		for (size_t i = a.pages; i < next; i++)
			page_fill(page_at(&a, i), a.salt + i);
		a.pages = n = next;
	}
	area_check(&a);
	area_check(&a);
	free(a.at);
}

static void brk_heap(void)
{
	size_t pages = mebibytes * MIB / PAGE;
	uint64_t end = (uint64_t)sbrk(0);
	struct area a = {.pages = pages, .salt = 8}, half;

	must(sbrk((intptr_t)(PAGE - end % PAGE)) != (void *)-1);
	a.at = sbrk((intptr_t)(pages * PAGE));
	must(a.at != (void *)-1);
	area_fill(&a);
	area_check(&a);
	area_check(&a);
	must(sbrk(-(intptr_t)(pages / 2 * PAGE)) != (void *)-1);
	must(sbrk((intptr_t)(pages / 2 * PAGE)) != (void *)-1);
	half = area_part(&a, pages / 2, pages / 2);
	half.salt = 0;
	area_check(&half);
	a.pages = pages / 2;
	area_check(&a);
}

static sigjmp_buf escape;
static volatile sig_atomic_t caught;

static void on_segv(int signal)
{
	caught = signal;
	siglongjmp(escape, 1);
}

static bool can_write(volatile char *p)
{
	if (sigsetjmp(escape, 1))
		return false;
	*p = *p;
	return true;
}

static bool can_read(volatile char *p)
{
	if (sigsetjmp(escape, 1))
		return false;
	(void)*p;
	return true;
}

static void protect(void)
{
	struct area a = area_start();
	size_t bytes = a.pages * PAGE;

	signal(SIGSEGV, on_segv);
	must(mprotect(a.at, bytes, PROT_READ) == 0);
	area_check(&a);
	for (size_t i = 0; i < a.pages; i += 97)
		if (can_write(page_at(&a, i)))
			wrong("page %zu of a read-only mapping could be written", i);
	must(mprotect(a.at, bytes, PROT_NONE) == 0);
	for (size_t i = 0; i < a.pages; i += 97)
		if (can_read(page_at(&a, i)))
			wrong("page %zu of a PROT_NONE mapping could be read", i);
	must(mprotect(a.at, bytes, PROT_READ | PROT_WRITE) == 0);
	area_check(&a);
	/* Pieces, as a garbage collector does it. */
	for (size_t i = 0; i + 16 < a.pages; i += 64)
		must(mprotect(page_at(&a, i), 16 * PAGE, PROT_READ) == 0);
	area_check(&a);
	for (size_t i = 0; i + 16 < a.pages; i += 64)
		must(mprotect(page_at(&a, i), 16 * PAGE, PROT_READ | PROT_WRITE) == 0);
	area_refill(&a, 123456);
	area_check(&a);
}

static void protect_exec(void)
{
	struct area a = area_map(mebibytes * MIB / PAGE, 3);

	must(mprotect(a.at, a.pages * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC) == 0);
	area_fill(&a);
	area_check(&a);
	area_check(&a);
}

static void lock(void)
{
	struct area a = area_start(), part = area_part(&a, 100, 256);

	if (mlock(part.at, part.pages * PAGE) != 0)
		skip("mlock of 1 MiB: %s", strerror(errno));
	area_check(&a);
	must(madvise(part.at, PAGE, MADV_DONTNEED) != 0 && errno == EINVAL);
	area_check(&part);
	must(munlock(part.at, part.pages * PAGE) == 0);
	area_check(&a);
	area_refill(&a, 555);
	area_check(&a);
}

/* More is locked than the limit allows: it stays, and stays right. */
static void lock_all(void)
{
	struct area a = area_start(), b;

	if (mlockall(MCL_CURRENT) != 0)
		skip("mlockall: %s", strerror(errno));
	area_check(&a);
	b = area_new(1024, 987);
	area_check(&b);
	must(munlockall() == 0);
	area_refill(&a, 4711);
	area_check(&a);
	area_check(&b);
}

static void lock_future(void)
{
	struct area a = area_start(), b;

	if (mlockall(MCL_FUTURE) != 0)
		skip("mlockall: %s", strerror(errno));
	b = area_new(512, 321);
	area_check(&a);
	area_check(&b);
	must(munlockall() == 0);
	area_check(&a);
	area_check(&b);
}

static void grows_down(void)
{
	struct area a = area_start(), down = {.pages = 1500, .salt = 700};
	char *top = (char *)0x100000000000;

	must(mmap(top - PAGE, PAGE, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1,
		  0) == top - PAGE);
	down.at = top - down.pages * PAGE;
	for (size_t i = down.pages; i-- > 0;)
		page_fill(page_at(&down, i), down.salt + i);
	area_check(&down);
	area_check(&a);
	area_check(&down);
}

static __attribute__((noinline)) uint64_t dig(uint64_t salt, unsigned deep)
{
	volatile uint64_t frame[WORDS];
	uint64_t sum = 0;

	for (unsigned i = 0; i < WORDS; i++)
		frame[i] = salt * deep + i;
	if (deep > 0)
		sum = dig(salt, deep - 1);
	for (unsigned i = 0; i < WORDS; i++)
		if (frame[i] != salt * deep + i)
			wrong("the stack holds wrong bytes, %u frames up", deep);
	return sum + frame[deep % WORDS];
}

static void deep_stack(void)
{
	struct area a = area_start();

	for (int i = 0; i < 5; i++) {
		dig(12345 + (uint64_t)i, 1500); /* 6 MiB */
		area_check(&a);
	}
}

/* A terabyte reserved, a page touched here and there. */
static void reserve(void)
{
	const size_t bytes = 1ul << 40, n = mebibytes * MIB / PAGE;
	const size_t step = bytes / n / PAGE * PAGE;
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		skip("1 TiB MAP_NORESERVE: %s", strerror(errno));
	for (size_t i = 0; i < n; i++)
		page_fill(p + i * step, i + 1);
	for (int round = 0; round < 2; round++)
		for (size_t i = 0; i < n; i++)
			page_check(p + i * step, i + 1);
	must(madvise(p, bytes / 2, MADV_DONTNEED) == 0);
	for (size_t i = 0; i < n; i++)
		page_check(p + i * step, i * step < bytes / 2 ? 0 : i + 1);
	must(munmap(p, bytes) == 0);
}

/* PROT_NONE reserved, made accessible piece by piece, as runtimes do. */
static void reserve_none(void)
{
	struct area a = {.pages = mebibytes * MIB / PAGE, .salt = 17};

	a.at = mmap(NULL, 1ul << 36, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	must(a.at != MAP_FAILED);
	for (size_t i = 0; i < a.pages; i += 256) {
		struct area part = area_part(&a, i, 256);

		must(mprotect(part.at, part.pages * PAGE, PROT_READ | PROT_WRITE) == 0);
		area_fill(&part);
	}
	area_check(&a);
	area_check(&a);
}

/* 20 000 VMAs: neighbours differ in protection, so the kernel cannot merge them. */
static void many_vmas(void)
{
	const size_t n = 20000;
	struct area a = area_new(n, 9);

	for (size_t i = 0; i < n; i += 2)
		must(mprotect(page_at(&a, i), PAGE, PROT_READ) == 0);
	area_check(&a);
	for (size_t i = 1; i < n; i += 2)
		page_fill(page_at(&a, i), 50000 + i);
	for (int round = 0; round < 2; round++)
		for (size_t i = 0; i < n; i++)
			page_check(page_at(&a, i), i % 2 ? 50000 + i : 9 + i);
	for (size_t i = 0; i < n; i += 2)
		must(mprotect(page_at(&a, i), PAGE, PROT_READ | PROT_WRITE) == 0);
	area_refill(&a, 1234);
	area_check(&a);
}

const struct behaviour memory_behaviours[] = {
	{"plain", plain},
	{"same-filled", same_filled},
	{"zero-reads", zero_reads},
	{"scans", scans},
	{"munmap", unmap},
	{"map-fixed", fixed},
	{"mremap-grow", mremap_grow},
	{"mremap-shrink", mremap_shrink},
	{"mremap-move", mremap_move},
	{"mremap-dontunmap", mremap_dontunmap},
	{"realloc", growing_block},
	{"brk", brk_heap},
	{"mprotect", protect},
	{"mprotect-exec", protect_exec},
	{"mlock", lock},
	{"mlockall", lock_all},
	{"mlockall-future", lock_future},
	{"grows-down", grows_down},
	{"deep-stack", deep_stack},
	{"reserve-1T", reserve},
	{"reserve-none", reserve_none},
	{"20000-vmas", many_vmas},
	{0},
};
