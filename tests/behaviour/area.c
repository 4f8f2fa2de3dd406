/* What all behaviour programs have in common: how they say what is wrong, and memory whose bytes are known. */
#include "behave.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

const char *subject;
size_t mebibytes = 64;

_Noreturn void wrong(const char *format, ...)
{
	char line[1024];
	va_list args;
	int n = snprintf(line, sizeof line, "%s (pid %d): ", subject, (int)getpid());

	va_start(args, format);
	n += vsnprintf(line + n, sizeof line - (size_t)n - 1, format, args);
	va_end(args);
	if (n > (int)sizeof line - 2)
		n = (int)sizeof line - 2;
	line[n++] = '\n';
	if (write(2, line, (size_t)n) < 0)
		_exit(1);
	_exit(1);
}

_Noreturn void skip(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("skip ");
	vprintf(format, args);
	printf("\n");
	va_end(args);
	fflush(stdout);
	_exit(77);
}

/* BEHAVE_TEXT: two pages of three can be compressed, to a third. */
static bool text;

__attribute__((constructor)) static void choose_contents(void)
{
	text = getenv("BEHAVE_TEXT");
}

uint64_t page_word(uint64_t salt, unsigned i)
{
	if (text && salt % 3 && i % 4)
		i = 0;
	uint64_t x = (salt * 1000003 + i) * 0xd6e8feb86659fd93ull;

	return salt == 0 ? 0 : x ^ x >> 31;
}

void page_fill(void *at, uint64_t salt)
{
	uint64_t *words = at;

	for (unsigned i = 0; i < WORDS; i++)
		words[i] = page_word(salt, i);
}

bool page_is(const void *at, uint64_t salt)
{
	const uint64_t *words = at;
	unsigned i = 0;

	while (i < WORDS && words[i] == page_word(salt, i))
		i++;
	return i == WORDS;
}

void page_check(const void *at, uint64_t salt)
{
	const uint64_t *words = at;

	for (unsigned i = 0; i < WORDS; i++)
		if (words[i] != page_word(salt, i))
			wrong("WRONG BYTES at %p, word %u: expected %#lx, found %#lx", at, i,
			      page_word(salt, i), words[i]);
}

void *page_at(const struct area *a, size_t i)
{
	return a->at + i * PAGE;
}

struct area area_part(const struct area *a, size_t from, size_t pages)
{
	return (struct area){a->at + from * PAGE, pages, a->salt ? a->salt + from : 0};
}

struct area area_map(size_t pages, uint64_t salt)
{
	struct area a = {.pages = pages, .salt = salt};

	a.at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(a.at != MAP_FAILED);
	return a;
}

void area_fill(const struct area *a)
{
	for (size_t i = 0; i < a->pages; i++)
		page_fill(page_at(a, i), a->salt ? a->salt + i : 0);
}

void area_check(const struct area *a)
{
	for (size_t i = 0; i < a->pages; i++)
		page_check(page_at(a, i), a->salt ? a->salt + i : 0);
}

void area_refill(struct area *a, uint64_t salt)
{
	a->salt = salt;
	area_fill(a);
}

struct area area_new(size_t pages, uint64_t salt)
{
	struct area a = area_map(pages, salt);

	area_fill(&a);
	return a;
}

struct area area_start(void)
{
	struct area a = area_new(mebibytes * MIB / PAGE, 1);

	area_check(&a);
	area_check(&a);
	return a;
}

void await(pid_t pid)
{
	int status;

	must(pid > 0);
	while (waitpid(pid, &status, 0) < 0)
		must(errno == EINTR);
	if (status != 0)
		wrong("child %d ended with %s %d", (int)pid,
		      WIFSIGNALED(status) ? "signal" : "status",
		      WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}
