/* Programs with several threads. */
#include "behave.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void *check_once(void *data)
{
	area_check(data);
	return NULL;
}

/* Eight threads read the same pages in step: many faults for one page. */
static void threads(void)
{
	struct area a = area_start();
	pthread_t ids[8];

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 8; i++)
			must(pthread_create(&ids[i], NULL, check_once, &a) == 0);
		for (int i = 0; i < 8; i++)
			pthread_join(ids[i], NULL);
	}
}

static pthread_barrier_t barrier;

static void *refill_stripe(void *data)
{
	struct area part = *(struct area *)data;

	for (int round = 0; round < 3; round++) {
		pthread_barrier_wait(&barrier);
		area_refill(&part, part.salt + 100000);
		area_check(&part);
	}
	*(struct area *)data = part;
	return NULL;
}

/* Threads that write while one of them forks. */
static void fork_threads(void)
{
	struct area a = area_start(), mine = area_new(2048, 65), parts[4];
	pthread_t ids[4];

	must(pthread_barrier_init(&barrier, NULL, 5) == 0);
	for (size_t i = 0; i < 4; i++) {
		parts[i] = area_part(&a, i * (a.pages / 4), a.pages / 4);
		must(pthread_create(&ids[i], NULL, refill_stripe, &parts[i]) == 0);
	}
	for (int round = 0; round < 3; round++) {
		pid_t pid;

		pthread_barrier_wait(&barrier);
		pid = fork();
		must(pid >= 0);
		if (pid == 0) {
			area_check(&mine);
			area_refill(&mine, 800);
			area_check(&mine);
			_exit(0);
		}
		area_refill(&mine, mine.salt + 1);
		await(pid);
		area_check(&mine);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(ids[i], NULL);
		area_check(&parts[i]);
	}
}

/* Waits for the pipe, and ends, without a touch of its memory: that has left by then. */
static void *end_at_once(void *argument)
{
	const int *pipe = argument;
	char *byte = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	__asm__ volatile("syscall\n\t"
			 "mov %[exit], %%eax\n\t"
			 "xor %%edi, %%edi\n\t"
			 "syscall"
			 :
			 : "a"((long)SYS_read), "D"((long)pipe[0]), "S"(byte), "d"(1l),
			   [exit] "i"(SYS_exit)
			 : "rcx", "r11", "memory");
	return NULL;
}

/* The kernel tells whoever joins a thread by a word of its memory, and waits for no fault there. */
static void thread_ends(void)
{
	struct area a = area_start();
	pthread_t threads[32];
	int ends[2];

	must(pipe(ends) == 0);
	for (unsigned i = 0; i < 32; i++)
		must(pthread_create(&threads[i], NULL, end_at_once, ends) == 0);
	for (unsigned round = 1; round < 4; round++)
		area_refill(&a, round * 1000);
	for (unsigned i = 0; i < 32; i++)
		must(write(ends[1], "x", 1) == 1);
	for (unsigned i = 0; i < 32; i++) {
		struct timespec until = {.tv_sec = time(NULL) + 20};

		if (pthread_timedjoin_np(threads[i], NULL, &until))
			wrong("thread %u has ended, and cannot be joined", i);
	}
	area_check(&a);
}

const struct behaviour thread_behaviours[] = {
	{"threads", threads},
	{"fork-threads", fork_threads},
	{"thread-ends", thread_ends},
	{0},
};
