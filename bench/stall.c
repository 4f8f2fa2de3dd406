/*
 * How long a program stands still: stall SIZE. It fills SIZE bytes, without huge pages, and for each line
 * that it reads does what it says, and prints a line:
 *
 *   fork       how long fork() took, ns (the child ends at once)
 *   snapshot   how long upager_snapshot() of the memory took, ns (0: not under upager)
 *   watch      begins to write to one page after the other
 *   longest    the longest that one write has taken since, ns
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <upager/upager.h>

#include "now.h"

#define PAGE_BYTES 4096u

static char *memory;
static uint64_t size;
static atomic_bool watching;

/* Between two saves a program works: the kernel's own records of the pages are in no cache then. */
static void work(void)
{
	memset(memory, 1, size);
}

static uint64_t time_fork(void)
{
	uint64_t started, took;
	pid_t child;

	work();
	started = now_ns();
	child = fork();
	if (child == 0)
		_exit(0);
	took = now_ns() - started;
	if (child < 0)
		abort();
	waitpid(child, NULL, 0);
	return took;
}

static uint64_t time_snapshot(void)
{
	uint64_t started, took;
	struct upager *upager;
	int snapshot, file = memfd_create("image", MFD_CLOEXEC);

	if (!getenv("UPAGER_SOCKET") || upager_open(NULL, &upager) < 0)
		return 0;
	work();
	started = now_ns();
	if (upager_snapshot(upager, file, memory, size, &snapshot) < 0)
		abort();
	took = now_ns() - started;
	if (upager_snapshot_wait(snapshot, NULL) < 0)
		abort();
	close(snapshot);
	close(file);
	upager_close(upager);
	return took;
}

static void *writer(void *argument)
{
	uint64_t *longest = argument;

	for (uint64_t at = 0; watching; at = (at + PAGE_BYTES) % size) {
		uint64_t started = now_ns(), took;

		*(volatile char *)(memory + at) = 1;
		took = now_ns() - started;
		*longest = took > *longest ? took : *longest;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t longest = 0;
	pthread_t thread;
	char line[32];

	size = argc > 1 ? strtoull(argv[1], NULL, 10) / PAGE_BYTES * PAGE_BYTES : 0;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return 1;
	madvise(memory, size, MADV_NOHUGEPAGE);
	memset(memory, 1, size);
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "fork\n")) {
			printf("%" PRIu64 "\n", time_fork());
		} else if (!strcmp(line, "snapshot\n")) {
			printf("%" PRIu64 "\n", time_snapshot());
		} else if (!strcmp(line, "watch\n")) {
			longest = 0;
			watching = true;
			pthread_create(&thread, NULL, writer, &longest);
			puts("watching");
		} else {
			watching = false;
			pthread_join(thread, NULL);
			printf("%" PRIu64 "\n", longest);
		}
		fflush(stdout);
	}
	return 0;
}
