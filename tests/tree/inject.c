/* Preloaded into upagerd: lets chosen userfaultfd calls fail, or wait (inject.h). */
#include "inject.h"

#include "sys/kernel.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static struct inject *shared(void)
{
	static _Atomic(struct inject *) mapped;
	struct inject *inject = atomic_load(&mapped);
	const char *path = getenv("UPAGER_INJECT");
	int fd;

	if (inject || !path)
		return inject;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return NULL; /* the program has not made it yet */
	if (lseek(fd, 0, SEEK_END) >= (off_t)sizeof(*inject)) {
		void *at = mmap(NULL, sizeof(*inject), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

		if (at != MAP_FAILED)
			atomic_store(&mapped, inject = at);
	}
	close(fd);
	return inject;
}

static int call_of(unsigned long request)
{
	switch (request) {
	case UFFDIO_COPY:
		return INJECT_COPY;
	case UFFDIO_ZEROPAGE:
		return INJECT_ZEROPAGE;
	case UFFDIO_WRITEPROTECT:
		return INJECT_PROTECT;
	default:
		return -1;
	}
}

static bool fails(unsigned long request)
{
	int call = call_of(request);
	struct inject *inject = call < 0 ? NULL : shared();
	uint32_t left = inject ? atomic_load(&inject->fail[call]) : 0;

	while (left)
		if (atomic_compare_exchange_weak(&inject->fail[call], &left, left - 1)) {
			errno = atomic_load(&inject->error);
			atomic_fetch_add(&inject->failed[call], 1);
			return true;
		}
	return false;
}

/* Called by the worker alone, of which there is one. */
static void note(struct inject *inject, enum inject_call call, uint64_t address)
{
	uint32_t n = atomic_load(&inject->n_notes);

	if (n == INJECT_NOTES || !atomic_load(&inject->held))
		return;
	inject->notes[n] = (struct inject_note){call, address};
	atomic_store(&inject->n_notes, n + 1);
}

static void hold_or_note(unsigned long request, const void *argument)
{
	const struct uffdio_register *reg = argument;
	const struct procmap_query *query = argument;
	struct inject *inject = request == UFFDIO_REGISTER || request == PROCMAP_QUERY ? shared() : NULL;

	if (!inject)
		return;
	if (request == PROCMAP_QUERY) {
		note(inject, INJECT_QUERY, query->query_addr);
		return;
	}
	note(inject, INJECT_REGISTER, reg->range.start);
	if (atomic_load(&inject->hold) != reg->range.start)
		return;
	atomic_store(&inject->held, 1);
	for (unsigned ms = 0; ms < 10000 && atomic_load(&inject->hold) == reg->range.start; ms++)
		usleep(1000);
}

int ioctl(int fd, unsigned long request, ...)
{
	static int (*_Atomic real)(int, unsigned long, ...);
	int (*next)(int, unsigned long, ...) = atomic_load(&real);
	void *argument;
	va_list args;

	va_start(args, request);
	argument = va_arg(args, void *);
	va_end(args);
	if (!next) {
		next = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
		atomic_store(&real, next);
	}
	hold_or_note(request, argument);
	return fails(request) ? -1 : next(fd, request, argument);
}
